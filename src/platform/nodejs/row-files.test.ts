/** Rows in files against the contract of every row store, and against disks that are full, slow or damaged. */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { rowsOf, testRowStoreContract } from '../../../test/row-store-contract.ts';
import { sha256Hex } from '../../std/hash.ts';
import { systemClock } from './clock.ts';
import { openRowFiles, type RowFilesOptions } from './row-files.ts';

const root = mkdtempSync(join(tmpdir(), 'neuroshard-rows-'));
after(() => rmSync(root, { recursive: true, force: true }));
const freshFolder = () => mkdtempSync(join(root, 'case-'));

async function start(folder: string, options: Partial<RowFilesOptions> = {}) {
  const told: [number, string][] = [];
  const onIncomplete: RowFilesOptions['onIncomplete'] = (round, { code }) => told.push([round, code]);
  const given = { clock: systemClock(), bytesMax: 10_000, memoryMax: 0, onIncomplete, ...options };
  return { told, store: await openRowFiles(folder, given) };
}

testRowStoreContract('files', async () => (await start(freshFolder())).store);
testRowStoreContract(
  'files, the oldest of them on disk',
  async () => (await start(freshFolder(), { memoryMax: 2_500 })).store,
);

const hash = (mark: number) => sha256Hex(rowsOf(mark));

test('a round is one file, gone with the round; a store that opens clears what was left', async () => {
  const folder = freshFolder();
  writeFileSync(join(folder, 'rows-7.bin'), 'of another life');
  writeFileSync(join(folder, 'node.key'), 'not ours');
  const { store } = await start(folder);
  assert.deepEqual(readdirSync(folder), ['node.key']);
  for (const mark of [1, 2, 3]) store.put(4, hash(mark), rowsOf(mark));
  store.put(5, hash(4), rowsOf(4));
  assert.ok((await store.isComplete(4)) && (await store.isComplete(5)));
  assert.deepEqual(readdirSync(folder).sort(), ['node.key', 'rows-0.bin', 'rows-1.bin']);
  assert.equal(readFileSync(join(folder, 'rows-0.bin')).length, 3000);
  store.drop(4);
  await store.close();
  assert.deepEqual(readdirSync(folder), ['node.key']);
});

test('a full disk costs the round, is told once, and the next round is tried again', async () => {
  const folder = freshFolder();
  let isFull = true;
  const openFile = (async (...args: Parameters<typeof open>) => {
    const file = await open(...args);
    if (!isFull) return file;
    const full = Object.assign(new Error('no space'), { code: 'ENOSPC' });
    return new Proxy(file, {
      get: (target, name) => {
        if (name === 'write') return () => Promise.reject(full);
        const value = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }) as typeof open;
  const { store, told } = await start(folder, { openFile });
  for (const mark of [1, 2, 3]) store.put(0, hash(mark), rowsOf(mark));
  assert.equal(await store.isComplete(0), false);
  store.put(0, hash(4), rowsOf(4));
  assert.equal(await store.get(hash(1)), undefined);
  assert.deepEqual(told, [[0, 'disk-full']]);
  isFull = false;
  store.put(1, hash(5), rowsOf(5));
  assert.equal(await store.isComplete(1), true);
  assert.deepEqual(await store.get(hash(5)), rowsOf(5));
  await store.close();
  assert.deepEqual(readdirSync(folder), []);
});

test('a disk that does not follow costs the round, not the memory', async () => {
  const { store, told } = await start(freshFolder(), { pendingMax: 2_500 });
  for (const mark of [1, 2, 3]) store.put(0, hash(mark), rowsOf(mark));
  assert.equal(await store.isComplete(0), false);
  assert.deepEqual(told, [[0, 'disk-slow']]);
  await store.close();
});

test('what the disk has damaged is not given', async () => {
  const folder = freshFolder();
  const { store } = await start(folder);
  for (const mark of [1, 2]) store.put(0, hash(mark), rowsOf(mark));
  assert.ok(await store.isComplete(0));
  const path = join(folder, 'rows-0.bin');
  const bytes = readFileSync(path);
  bytes[10]! ^= 1;
  writeFileSync(path, bytes.subarray(0, 1500));
  assert.equal(await store.get(hash(1)), undefined, 'a bit is wrong');
  assert.equal(await store.get(hash(2)), undefined, 'half of it is gone');
  await store.close();
});

test('what there is memory for touches no disk; beyond it the oldest is written', async () => {
  const folder = freshFolder();
  const { store } = await start(folder, { memoryMax: 3_000 });
  for (const mark of [1, 2, 3]) store.put(0, hash(mark), rowsOf(mark));
  assert.ok(await store.isComplete(0));
  assert.deepEqual(readdirSync(folder), []);
  store.put(1, hash(4), rowsOf(4));
  assert.ok((await store.isComplete(0)) && (await store.isComplete(1)));
  assert.deepEqual(readdirSync(folder), ['rows-0.bin']);
  for (const mark of [1, 2, 3, 4]) assert.deepEqual(await store.get(hash(mark)), rowsOf(mark));
  await store.close();
});

test('a disk is not written more than it bears in a day: then a round is what memory holds', async () => {
  let nowMs = 0;
  const clock = { ...systemClock(), nowMs: () => nowMs };
  const { store, told } = await start(freshFolder(), { clock, memoryMax: 1_000, dailyMax: 2_000 });
  for (const mark of [1, 2, 3]) store.put(0, hash(mark), rowsOf(mark));
  assert.ok(await store.isComplete(0));
  for (const mark of [4, 5]) store.put(0, hash(mark), rowsOf(mark));
  assert.equal(await store.isComplete(0), false);
  assert.deepEqual(told, [[0, 'disk-cap']]);
  store.drop(0);
  store.put(1, hash(4), rowsOf(4));
  assert.ok(await store.isComplete(1));
  nowMs = 86_400_001;
  store.put(1, hash(5), rowsOf(5));
  assert.ok(await store.isComplete(1), 'another day');
  await store.close();
});
