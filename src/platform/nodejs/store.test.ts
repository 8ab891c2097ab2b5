/** The folder store against the contract of every store, and against what a crash leaves behind. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { testStoreContract } from '../../../test/store-contract.ts';
import { folderStore } from './store.ts';

const root = mkdtempSync(join(tmpdir(), 'neuroshard-store-'));
after(() => rmSync(root, { recursive: true, force: true }));
const freshFolder = () => mkdtempSync(join(root, 'case-'));

testStoreContract('folder store', () => folderStore(freshFolder()));

test('a folder store opened again holds what was put, and no half-written file', async () => {
  const folder = freshFolder();
  const first = await folderStore(folder);
  await first.put('round/1', new Uint8Array([1, 2, 3]));
  writeFileSync(join(folder, 'round%2f1.value.123.1.tmp'), 'half');
  const again = await folderStore(folder);
  assert.deepEqual(await again.list(''), ['round/1']);
  assert.deepEqual(await again.get('round/1'), new Uint8Array([1, 2, 3]));
  assert.deepEqual(readdirSync(folder), ['round%2f1.value']);
});

test('a key too long for a file name is refused by one clear error', async () => {
  const store = await folderStore(freshFolder());
  await assert.rejects(store.put('k'.repeat(300), new Uint8Array()), { code: 'key-too-long' });
});
