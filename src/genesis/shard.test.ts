import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate } from 'node:timers/promises';
import fc from 'fast-check';
import { sha256 } from '../std/hash.ts';
import { merkleRoot } from '../std/merkle.ts';
import { CodedError } from '../std/outcome.ts';
import { chunkedSource, type FetchChunk, memoryDataset, openDataset } from './dataset.ts';
import { type DatasetManifest, publishManifest, tokenBytesFor } from './manifest.ts';
import {
  bytesOfTokens,
  chunkBytes,
  chunkCount,
  chunkMessageBytesMax,
  chunkWithProof,
  decodeChunk,
  encodeChunk,
  openShard,
  packTokens,
  shardLeaves,
  verifyChunk,
} from './shard.ts';

const tokenizerJson = new Uint8Array([1, 2, 3]);

/** A manifest over given shards; the last is held out. */
function manifestOf(vocabularySize: number, shards: readonly Uint8Array[]): DatasetManifest {
  const tokenBytes = tokenBytesFor(vocabularySize);
  return {
    format: 1,
    name: 'test',
    sources: [],
    tokenizerHash: sha256(tokenizerJson),
    vocabularySize,
    tokenBytes,
    shards: shards.map((bytes, index) => ({
      index,
      tokens: bytes.length / tokenBytes,
      bytes: bytes.length,
      merkleRoot: merkleRoot(shardLeaves(bytes)),
    })),
    heldOut: [shards.length - 1],
  };
}

function shardOf(tokens: number, vocabularySize: number): Uint8Array {
  const ids = Array.from({ length: tokens }, (_, i) => (i * 7919) % vocabularySize);
  return bytesOfTokens(packTokens(ids, tokenBytesFor(vocabularySize)));
}

// 100,000 tokens of two bytes: four chunks, the last shorter.
const shard = shardOf(100_000, 500);
const manifest = manifestOf(500, [shard, shardOf(10, 500)]);
const info = manifest.shards[0]!;

test('tokens are little-endian, two bytes or four', () => {
  assert.deepEqual([...bytesOfTokens(packTokens([1, 258], 2))], [1, 0, 2, 1]);
  assert.deepEqual([...bytesOfTokens(packTokens([1, 70_000], 4))], [1, 0, 0, 0, 0x70, 0x11, 1, 0]);
  const wide = shardOf(40_000, 100_000);
  const opened = openShard(manifestOf(100_000, [wide, wide]), 0, wide);
  assert.ok(opened.ok && opened.value instanceof Uint32Array);
  assert.equal(opened.value[39_999], (39_999 * 7919) % 100_000);
});

test('bytes at an odd offset of a larger buffer open all the same', () => {
  const moved = new Uint8Array(shard.length + 1);
  moved.set(shard, 1);
  const opened = openShard(manifest, 0, moved.subarray(1));
  assert.ok(opened.ok);
  assert.equal(opened.value[12_345], (12_345 * 7919) % 500);
});

test('every chunk is verified alone, and passes for no other', () => {
  assert.equal(chunkCount(info.bytes), 4);
  for (let chunk = 0; chunk < 4; chunk++) {
    const served = chunkWithProof(shard, chunk);
    assert.ok(served.ok);
    const message = encodeChunk(served.value);
    assert.ok(message.length <= chunkMessageBytesMax);
    for (let other = 0; other < 4; other++) {
      assert.equal(verifyChunk(info, other, served.value), other === chunk);
      assert.equal(decodeChunk(message, info, other).ok, other === chunk);
    }
    assert.equal(verifyChunk(manifest.shards[1]!, chunk, served.value), false);
  }
  for (const chunk of [-1, 4, 0.5, Number.NaN]) {
    assert.deepEqual(chunkWithProof(shard, chunk), { ok: false, code: 'no-such-chunk', detail: '' });
  }
});

test('a chunk message with any bit flipped, or any noise, is rejected', () => {
  const served = chunkWithProof(shard, 3);
  assert.ok(served.ok);
  const message = encodeChunk(served.value);
  fc.assert(
    fc.property(fc.nat(message.length * 8 - 1), (bit) => {
      const flipped = message.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      assert.equal(decodeChunk(flipped, info, 3).ok, false);
    }),
  );
  fc.assert(fc.property(fc.uint8Array(), (noise) => assert.equal(decodeChunk(noise, info, 3).ok, false)));
});

test('a damaged shard is refused, naming the chunk where the leaves are known', () => {
  const leaves = shardLeaves(shard);
  const damaged = shard.slice();
  damaged[2 * chunkBytes + 5]! ^= 1;
  assert.deepEqual(openShard(manifest, 0, damaged, leaves), {
    ok: false,
    code: 'bad-proof',
    detail: 'chunk 2 does not match the manifest',
  });
  const unknown = openShard(manifest, 0, damaged);
  assert.ok(!unknown.ok && unknown.detail === 'content does not match the manifest');
  const short = openShard(manifest, 0, shard.subarray(2));
  assert.equal(short.ok ? 'ok' : short.code, 'wrong-size');
});

test('a publisher cannot bring in tokens outside the vocabulary', () => {
  const bytes = bytesOfTokens(packTokens([1, 2, 500], 2));
  const opened = openShard(manifestOf(500, [bytes, bytes]), 0, bytes);
  assert.deepEqual(opened, { ok: false, code: 'token-out-of-range', detail: 'token 2 is 500' });
});

test('the tokenizer must be the one that the manifest names', () => {
  const published = publishManifest(manifest, null);
  assert.throws(() => memoryDataset(published, new Uint8Array([9]), []), { code: 'tokenizer-mismatch' });
});

test('shards are read once, forgotten past the bound, and a failed read is tried again', async () => {
  const shards = [0, 1, 2].map((i) => shardOf(100 + i, 500));
  const published = publishManifest(manifestOf(500, shards), null);
  const reads: number[] = [];
  let failing = false;
  const source = {
    nameOf: (index: number) => `shard ${index}`,
    read: async (index: number) => {
      reads.push(index);
      return failing ? shards[index]!.map((byte) => byte ^ 1) : shards[index]!;
    },
  };
  const dataset = openDataset(published, tokenizerJson, source, { memoryBytesMax: 500 });
  const [first, again] = await Promise.all([dataset.shard(0), dataset.shard(0)]);
  assert.equal(first, again);
  await dataset.shard(1);
  await dataset.shard(0);
  assert.deepEqual(reads, [0, 1]);
  await dataset.shard(2);
  await dataset.shard(0);
  assert.deepEqual(reads, [0, 1, 2], 'the least recently used shard was forgotten');
  failing = true;
  await assert.rejects(dataset.shard(1), { code: 'shard-corrupt' });
  failing = false;
  assert.equal((await dataset.shard(1)).length, 101);
});

test('shards fetched from peers chunk by chunk; a bad chunk is never used', async () => {
  const published = publishManifest(manifest, null);
  let hostile = true;
  const refused: string[] = [];
  let inFlight = 0;
  let inFlightMost = 0;
  const fetchChunk: FetchChunk = async (_shard, chunk, take) => {
    inFlightMost = Math.max(inFlightMost, ++inFlight);
    await setImmediate();
    inFlight--;
    const served = chunkWithProof(shard, chunk);
    assert.ok(served.ok);
    if (hostile && chunk === 1) {
      const taken = take(encodeChunk({ ...served.value, chunk: new Uint8Array(chunkBytes) }));
      assert.ok(!taken.ok);
      refused.push(taken.code);
      throw new CodedError('dataset-unavailable', 'nobody else has it');
    }
    assert.ok(take(encodeChunk(served.value)).ok);
  };
  const source = chunkedSource(manifest, fetchChunk, { chunksInFlight: 2 });
  const dataset = openDataset(published, tokenizerJson, source);
  await assert.rejects(dataset.shard(0), { code: 'dataset-unavailable' });
  assert.deepEqual(refused, ['bad-proof']);
  hostile = false;
  await setImmediate();
  inFlightMost = 0;
  assert.deepEqual(bytesOfTokens(await dataset.shard(0)), shard);
  assert.equal(inFlightMost, 2);
});
