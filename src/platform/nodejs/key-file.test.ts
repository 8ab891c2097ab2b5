import assert from 'node:assert/strict';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { generateKeyPair } from '../../identity/keys.ts';
import { toHex } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { encryptKey } from './key-encryption.ts';
import { createKeyFile, inspectKeyFile, loadKeyFile, loadOrCreateKeyFile } from './key-file.ts';

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

const passphrase = 'correct horse battery staple';
const asked = (text: string) => async () => text;

test('a key under a passphrase: opened with it, never without, and its address is known', async () => {
  const path = await freshPath();
  const key = generateKeyPair();
  await createKeyFile(path, key, passphrase);
  assert.equal((await stat(path)).mode & 0o777, 0o600);
  const content = await readFile(path, 'utf8');
  assert.ok(!content.includes(toHex(key.secretKey)));
  assert.deepEqual(await inspectKeyFile(path), { nodeId: key.nodeId, encrypted: true });
  assert.deepEqual(await loadKeyFile(path, asked(passphrase)), key);
  assert.deepEqual(await loadOrCreateKeyFile(path, asked(passphrase)), key);
  await assert.rejects(loadKeyFile(path), fails('passphrase-needed'));
  await assert.rejects(loadOrCreateKeyFile(path), fails('passphrase-needed'));
  await assert.rejects(loadKeyFile(path, asked('wrong')), fails('wrong-passphrase'));
  await assert.rejects(loadKeyFile(path, asked('')), fails('bad-passphrase'));
  await assert.rejects(createKeyFile(path, key, passphrase), fails('already-exists'));
  assert.equal(await readFile(path, 'utf8'), content);
});

test('a plain key asks for no passphrase', async () => {
  const path = await freshPath();
  const key = await createKeyFile(path, generateKeyPair());
  const never = () => Promise.reject(new Error('asked'));
  assert.deepEqual(await loadKeyFile(path, never), key);
  assert.deepEqual(await inspectKeyFile(path), { nodeId: key.nodeId, encrypted: false });
});

test('an encrypted key that was changed anywhere does not open', async () => {
  const key = generateKeyPair();
  const good = JSON.parse(await encryptKey(key, passphrase, { n: 2 ** 14, r: 8, p: 1 }));
  const flipped = (text: string) => (text[0] === '0' ? '1' : '0') + text.slice(1);
  const cases: readonly [change: object, code: string][] = [
    [{}, 'opens'],
    [{ sealed: flipped(good.sealed) }, 'wrong-passphrase'],
    [{ salt: flipped(good.salt) }, 'wrong-passphrase'],
    [{ nonce: flipped(good.nonce) }, 'wrong-passphrase'],
    [{ publicKey: toHex(generateKeyPair().publicKey) }, 'wrong-passphrase'],
    [{ p: 2 }, 'wrong-passphrase'],
    [{ n: 2 ** 21 }, 'key-damaged'],
    [{ n: 3 }, 'key-damaged'],
    [{ p: 1000 }, 'key-damaged'],
    [{ sealed: '' }, 'key-damaged'],
    [{ version: 2 }, 'key-damaged'],
    [{ more: 1 }, 'key-damaged'],
  ];
  for (const [change, code] of cases) {
    const path = await freshPath();
    await writeFile(path, JSON.stringify({ ...good, ...change }), { mode: 0o600 });
    const loaded = loadKeyFile(path, asked(passphrase));
    if (code === 'opens') assert.deepEqual(await loaded, key);
    else await assert.rejects(loaded, fails(code), JSON.stringify(change));
  }
});

test('one passphrase in two Unicode forms is one', async () => {
  const path = await freshPath();
  const key = generateKeyPair();
  const text = await encryptKey(key, 'caf\u00e9', { n: 2 ** 14, r: 8, p: 1 });
  await writeFile(path, text, { mode: 0o600 });
  assert.deepEqual(await loadKeyFile(path, asked('cafe\u0301')), key);
});
