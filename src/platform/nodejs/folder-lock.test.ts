/** Two real processes and one folder: the second is refused, and a kill -9 leaves nothing in the way. */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CodedError } from '../../std/outcome.ts';
import { lockFolder } from './folder-lock.ts';

if (process.argv[2] === 'hold') hold(process.argv[3]!);
else tests();

/** A node in the other process: takes the lock, says so, and stays. */
function hold(directory: string): void {
  try {
    lockFolder(directory);
    process.send!('locked');
    process.on('disconnect', () => process.exit());
  } catch (error) {
    process.send!(error instanceof CodedError ? error.code : String(error));
    process.disconnect();
  }
}

function tests(): void {
  const root = mkdtempSync(join(tmpdir(), 'neuroshard-lock-'));
  const children: ChildProcess[] = [];
  after(() => {
    for (const child of children) child.kill('SIGKILL');
    rmSync(root, { recursive: true, force: true });
  });

  const startOther = async (directory: string) => {
    const child = fork(fileURLToPath(import.meta.url), ['hold', directory]);
    children.push(child);
    const [said] = await once(child, 'message');
    return { child, said };
  };
  const code = (wanted: string) => (error: unknown) => error instanceof CodedError && error.code === wanted;

  test('a folder has one holder; a killed holder leaves nothing in the way', async () => {
    const { child, said } = await startOther(root);
    assert.equal(said, 'locked');
    assert.throws(() => lockFolder(root), code('folder-in-use'));
    const exit = once(child, 'exit');
    child.kill('SIGKILL');
    await exit;
    const release = lockFolder(root);
    assert.equal((await startOther(root)).said, 'folder-in-use');
    assert.throws(() => lockFolder(root), code('folder-in-use'), 'within one process, too');
    release();
    release();
    assert.equal((await startOther(root)).said, 'locked');
    assert.deepEqual(readdirSync(root), ['lock'], 'no journal beside it');
  });

  test('a refused folder names itself in one line', () => {
    const folder = mkdtempSync(join(root, 'named-'));
    const release = lockFolder(folder);
    assert.throws(
      () => lockFolder(folder),
      (error: Error) => error.message.includes(folder) && !error.message.includes('\n'),
    );
    release();
  });

  test('a folder that cannot be locked gives one code, too', () => {
    const folder = mkdtempSync(join(root, 'damaged-'));
    assert.throws(() => lockFolder(join(folder, 'missing')), code('folder-lock-failed'));
    writeFileSync(join(folder, 'lock'), 'x'.repeat(4096));
    assert.throws(() => lockFolder(folder), code('folder-lock-failed'));
  });
}
