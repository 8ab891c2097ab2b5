import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accountNamed, accountRow, headAt } from '../../bench/support/ledger-blocks.ts';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { encodeRow } from './row-codec.ts';
import {
  compareRows,
  decodeSnapshotInfo,
  type EncodedRow,
  encodeSnapshotInfo,
  readSnapshot,
  snapshotChunks,
} from './snapshot-chunks.ts';

function rowsOf(count: number): EncodedRow[] {
  const rows = Array.from({ length: count }, (_, index) => ({
    table: 'account' as const,
    key: accountNamed(index),
    bytes: encodeRow(accountRow(BigInt(index))),
  }));
  return rows.sort(compareRows);
}

const infoOf = (chunks: readonly Uint8Array[]) => ({
  head: headAt(5),
  chunks: chunks.map((chunk) => sha256(chunk)),
  bytes: chunks.reduce((sum, chunk) => sum + chunk.length, 0),
});

test('rows go into several chunks of bounded size and come back in order', () => {
  const rows = rowsOf(2200);
  const chunks = [...snapshotChunks(rows)];
  assert.ok(chunks.length > 1);
  for (const chunk of chunks) assert.ok(chunk.length < 300 * 1024);
  const reader = readSnapshot(infoOf(chunks));
  const keys: string[] = [];
  for (const chunk of chunks) {
    const added = reader.add(chunk);
    assert.ok(added.ok);
    keys.push(...added.value.map(({ key }) => key));
  }
  assert.equal(reader.left(), 0);
  assert.deepEqual(
    keys,
    rows.map(({ key }) => key),
  );
  assert.deepEqual([...snapshotChunks([])], []);
});

test('a chunk that is not the next one is refused, and the right one taken after it', () => {
  const chunks = [...snapshotChunks(rowsOf(2200))];
  const reader = readSnapshot(infoOf(chunks));
  for (const wrong of [chunks[1]!, chunks[0]!.with(9, 0), new Uint8Array()]) {
    const added = reader.add(wrong);
    assert.equal(!added.ok && added.code, 'wrong-chunk');
  }
  for (const chunk of chunks) assert.ok(reader.add(chunk).ok);
  assert.ok(!reader.add(chunks[0]!).ok);
});

test('chunks that only a cheat would name are malformed', () => {
  const [first, second] = rowsOf(2).map(({ table, key, bytes }) => [table, key, bytes]);
  const wrong = [
    null,
    [[]],
    [first!.slice(1)],
    [['nothing', 'key', first![2]]],
    [['account', 7, first![2]]],
    [['account', 'key', 'row']],
    [['account', 'key', encodeCanonical(7)]],
    [second, first],
    [first, first],
  ];
  for (const value of wrong) {
    const chunk = encodeCanonical(value as never);
    const added = readSnapshot(infoOf([chunk])).add(chunk);
    assert.equal(!added.ok && added.code, 'malformed-snapshot');
  }
});

test('an info survives its encoding, and no bytes make its decoder throw', () => {
  const info = infoOf([new Uint8Array([1]), new Uint8Array([2])]);
  const bytes = encodeSnapshotInfo(info);
  const decoded = decodeSnapshotInfo(bytes);
  assert.ok(decoded.ok);
  assert.deepEqual(decoded.value, info);
  assertNeverThrows(decodeSnapshotInfo, bytes);
  for (const fields of [[], [1, 2, 3, 4, 5, 6, 7], [5, info.head.hash, 1, 1, info.head.hash, 'chunks', 1]]) {
    const refused = decodeSnapshotInfo(encodeCanonical(fields));
    assert.equal(!refused.ok && refused.code, 'malformed-snapshot');
  }
});
