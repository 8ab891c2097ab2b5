import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { generateKeyPair } from '../../identity/keys.ts';
import { toHex } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { createKeyFile, loadKeyFile, loadOrCreateKeyFile } from './key-file.ts';

let folder: string;
let count = 0;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'key-file-'));
});
after(() => rm(folder, { recursive: true }));

/** A folder of its own for each test. */
async function freshPath(): Promise<string> {
  count += 1;
  const own = join(folder, String(count));
  await mkdir(own);
  return join(own, 'node.key');
}

const fails = (code: string) => (error: unknown) => {
  assert.ok(error instanceof CodedError, String(error));
  assert.equal(error.code, code);
  assert.equal(error.message.includes('\n'), false);
  return true;
};

test('creates a key once, for its owner alone, and loads the same ever after', async () => {
  const path = await freshPath();
  const key = await loadOrCreateKeyFile(path);
  assert.deepEqual(await loadOrCreateKeyFile(path), key);
  assert.deepEqual(await loadKeyFile(path), key);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  assert.equal(await readFile(path, 'utf8'), `${toHex(key.secretKey)}\n`);
  assert.deepEqual(await readdir(join(path, '..')), ['node.key']);
});

test('many who create at once all get the one key that is in the file', async () => {
  const path = await freshPath();
  const keys = await Promise.all(Array.from({ length: 8 }, () => loadOrCreateKeyFile(path)));
  assert.equal(new Set(keys.map((key) => key.nodeId)).size, 1);
  assert.deepEqual(await readdir(join(path, '..')), ['node.key']);
});

test('never overwrites a key', async () => {
  const path = await freshPath();
  const key = generateKeyPair();
  await createKeyFile(path, key);
  await assert.rejects(createKeyFile(path, generateKeyPair()), fails('already-exists'));
  assert.deepEqual(await loadKeyFile(path), key);
});

test('refuses a key that others can read', { skip: process.platform === 'win32' }, async () => {
  const path = await freshPath();
  await createKeyFile(path, generateKeyPair());
  for (const mode of [0o644, 0o640, 0o602, 0o660]) {
    await chmod(path, mode);
    await assert.rejects(loadOrCreateKeyFile(path), fails('key-exposed'));
  }
  await chmod(path, 0o400);
  assert.equal((await loadKeyFile(path)).nodeId.length, 64);
});

test('a damaged file is an error and stays as it is', async () => {
  const good = toHex(generateKeyPair().secretKey);
  const contents = [
    '',
    good.slice(1),
    `${good}00`,
    `${good.slice(1)}g`,
    '0'.repeat(64),
    'f'.repeat(64),
    'x'.repeat(10_000),
  ];
  for (const content of contents) {
    const path = await freshPath();
    await writeFile(path, content, { mode: 0o600 });
    await assert.rejects(loadOrCreateKeyFile(path), fails('key-damaged'));
    assert.equal(await readFile(path, 'utf8'), content);
  }
});

test('says what is wrong with the path', async () => {
  const path = await freshPath();
  await assert.rejects(loadKeyFile(path), fails('not-found'));
  await assert.rejects(loadOrCreateKeyFile(join(path, 'in', 'no', 'folder')), fails('not-found'));
  await mkdir(path, { mode: 0o700 });
  await assert.rejects(loadOrCreateKeyFile(path), fails('key-damaged'));
});
