/** Atomic writes and bounded reads, on a real file system and on a disk that is full half-way. */
import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { createFolder, readFileBounded, writeFileAtomic } from './files.ts';

const root = mkdtempSync(join(tmpdir(), 'neuroshard-files-'));
after(() => rmSync(root, { recursive: true, force: true }));
const freshFolder = () => mkdtempSync(join(root, 'case-'));
const bytes = (text: string) => new TextEncoder().encode(text);

/** Opens real files whose disk has room for `room` more bytes, then fails as the system does. */
function fullDisk(room: number): typeof open {
  return async (...parameters) => {
    const file = await open(...parameters);
    const limited = {
      write: async (piece: Uint8Array, offset: number, length: number) => {
        if (room === 0)
          throw Object.assign(new Error('ENOSPC: no space left on device, write'), { code: 'ENOSPC' });
        const result = await file.write(piece, offset, Math.min(length, room));
        room -= result.bytesWritten;
        return result;
      },
      sync: () => file.sync(),
      close: () => file.close(),
    };
    return limited as unknown as FileHandle;
  };
}

test('a write replaces the file with exactly its pieces and leaves nothing else', async () => {
  const folder = freshFolder();
  const path = join(folder, 'a.bin');
  await writeFileAtomic(path, bytes('old'));
  await writeFileAtomic(path, [bytes('new '), new Uint8Array(), bytes('content')], { mode: 0o600 });
  assert.equal(readFileSync(path, 'utf8'), 'new content');
  assert.deepEqual(readdirSync(folder), ['a.bin']);
  if (process.platform !== 'win32') assert.equal(statSync(path).mode & 0o777, 0o600);
});

test('a full disk is one coded error, and the old content stays whole', async () => {
  const folder = freshFolder();
  const path = join(folder, 'a.bin');
  await writeFileAtomic(path, bytes('old'));
  const write = writeFileAtomic(path, bytes('longer than five'), { openFile: fullDisk(5) });
  await assert.rejects(write, {
    code: 'disk-full',
    message: `cannot write ${path}: no space left on the disk`,
  });
  assert.equal(readFileSync(path, 'utf8'), 'old');
  assert.deepEqual(readdirSync(folder), ['a.bin']);
});

test('a failing source of pieces leaves the old content whole', async () => {
  const folder = freshFolder();
  const path = join(folder, 'a.bin');
  await writeFileAtomic(path, bytes('old'));
  async function* pieces() {
    yield bytes('half');
    throw new Error('the source broke');
  }
  await assert.rejects(writeFileAtomic(path, pieces()), { code: 'file-error', message: /the source broke/ });
  assert.equal(readFileSync(path, 'utf8'), 'old');
  assert.deepEqual(readdirSync(folder), ['a.bin']);
});

test('a write into a folder that is not there, or is a file, is refused', async () => {
  const folder = freshFolder();
  await assert.rejects(writeFileAtomic(join(folder, 'no', 'a.bin'), bytes('x')), { code: 'not-found' });
  writeFileSync(join(folder, 'file'), 'x');
  await assert.rejects(writeFileAtomic(join(folder, 'file', 'a.bin'), bytes('x')), { code: 'not-a-folder' });
  await assert.rejects(createFolder(join(folder, 'file')), { code: 'not-a-folder' });
  await assert.rejects(createFolder(join(folder, 'file', 'below')), { code: 'not-a-folder' });
});

test('a folder is made with those above it, by several at once', async () => {
  const deep = join(freshFolder(), 'a', 'b', 'c');
  await Promise.all([createFolder(deep), createFolder(deep), createFolder(join(deep, 'd'))]);
  assert.deepEqual(readdirSync(deep), ['d']);
});

test('a folder where none can be is refused, and not tried for ever', {
  skip: process.platform !== 'linux',
}, async () => {
  await assert.rejects(createFolder('/proc/none/below'), { code: 'not-found' });
});

test('a read is whole or refused', async () => {
  const folder = freshFolder();
  const path = join(folder, 'a.bin');
  const content = new Uint8Array(100_000).map((_, index) => index % 251);
  writeFileSync(path, content);
  assert.deepEqual(await readFileBounded(path, 100_000), content);
  await assert.rejects(readFileBounded(path, 99_999), { code: 'too-large' });
  await assert.rejects(readFileBounded(join(folder, 'none'), 10), { code: 'not-found' });
  await assert.rejects(readFileBounded(folder, 1_000_000), { code: 'not-a-file' });
});

test('a file that says it is empty and never ends is refused at the limit', {
  skip: process.platform !== 'linux',
}, async () => {
  const path = join(freshFolder(), 'endless');
  symlinkSync('/dev/zero', path);
  await assert.rejects(readFileBounded(path, 100_000), { code: 'too-large' });
});
