/** What every `RowStore` must do, run against each implementation by its own test. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RowStore } from '../src/pipeline/row-store.ts';
import { sha256Hex } from '../src/std/hash.ts';

export const rowsOf = (mark: number, length = 1000) =>
  Uint8Array.from({ length }, (_, i) => (mark * 31 + i) % 251);

/** `open` gives an empty store that has room for 10,000 bytes in a round. */
export function testRowStoreContract(name: string, open: () => Promise<RowStore>): void {
  const put = (store: RowStore, round: number, bytes: Uint8Array) => {
    store.put(round, sha256Hex(bytes), bytes);
    return sha256Hex(bytes);
  };

  test(`${name}: what was put is there, of whatever round, until its round is dropped`, async () => {
    const store = await open();
    const hashes = [1, 2, 3].map((mark) => put(store, mark % 2, rowsOf(mark)));
    const both = put(store, 0, rowsOf(1));
    assert.deepEqual(await store.get(hashes[1]!), rowsOf(2));
    assert.ok((await store.isComplete(0)) && (await store.isComplete(1)) && (await store.isComplete(7)));
    for (const [i, hash] of hashes.entries()) assert.deepEqual(await store.get(hash), rowsOf(i + 1));
    store.drop(1);
    assert.deepEqual(await store.get(both), rowsOf(1), 'another round has it, too');
    assert.equal(await store.get(hashes[2]!), undefined);
    store.drop(0);
    for (const hash of hashes) assert.equal(await store.get(hash), undefined);
    await store.close();
  });

  test(`${name}: bytes of another hash are never given`, async () => {
    const store = await open();
    const hash = sha256Hex(rowsOf(1));
    store.put(0, hash, rowsOf(2));
    await store.isComplete(0);
    assert.equal(await store.get(hash), undefined);
    assert.equal(await store.get('00'.repeat(32)), undefined);
    await store.close();
  });

  test(`${name}: a round too large is incomplete and keeps nothing, until it begins again; others are kept`, async () => {
    const store = await open();
    const before = put(store, 0, rowsOf(0));
    const hashes = Array.from({ length: 11 }, (_, mark) => put(store, 1, rowsOf(mark)));
    assert.equal(await store.isComplete(1), false);
    assert.equal(await store.get(hashes[5]!), undefined);
    put(store, 1, rowsOf(77));
    assert.equal(await store.isComplete(1), false);
    assert.deepEqual(await store.get(before), rowsOf(0));
    store.drop(1);
    const again = put(store, 1, rowsOf(78));
    assert.equal(await store.isComplete(1), true);
    assert.deepEqual(await store.get(again), rowsOf(78));
    await store.close();
    assert.equal(await store.get(again), undefined);
  });

  test(`${name}: the same rows are kept once a round, and empty ones are rows`, async () => {
    const store = await open();
    for (let i = 0; i < 20; i++) put(store, 0, rowsOf(1));
    const empty = put(store, 0, new Uint8Array());
    assert.equal(await store.isComplete(0), true);
    assert.deepEqual(await store.get(empty), new Uint8Array());
    await store.close();
  });
}
