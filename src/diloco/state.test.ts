import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { stateHashOfRoot } from '../ledger/state-hash.ts';
import { wholeModel } from '../model/parameters.ts';
import { createSegments, flatLength, type Segment } from '../optim/segments.ts';
import { toHex } from '../std/bytes.ts';
import { merkleLevels, proofFromLevels, verifyMerkleProof } from '../std/merkle.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { flatLeafHashes, leafBytes, leafCount, leafHashes, readLeaf, stateHash, writeLeaf } from './state.ts';

const plan = new Uint8Array(32).fill(4);
/** More than one leaf for each kind, the last one not full, and leaves that straddle segments. */
const config = { ...tinyConfig, vocabulary: 9000 };

function segmentsOf(fill: (index: number, kind: 'base' | 'velocity') => number): Segment[] {
  const stage = wholeModel(config);
  const options = { config, stage, createMemory: createKernelMemory, embeddingScratchBytes: 0 };
  const segments = createSegments(options);
  for (const { slabs, offset, length } of segments)
    for (const kind of ['base', 'velocity'] as const)
      for (let i = 0; i < length; i++) slabs[kind][i] = fill(offset + i, kind);
  return segments;
}

const segments = segmentsOf((i, kind) => (kind === 'base' ? i : -i));
const flat = flatLength(segments);
const hashOf = (some: readonly Segment[], round = 3) => toHex(stateHash(plan, round, leafHashes(some)));

test('leaves cover w_r and then v, in the order of the flat vector', () => {
  const count = leafCount(flat);
  assert.ok(count >= 4 && flat % 65_536 !== 0);
  const read: number[] = [];
  for (let index = 0; index < count; index++) {
    const bytes = readLeaf(segments, index);
    assert.equal(bytes.length, leafBytes(flat, index));
    read.push(...new Float32Array(bytes.slice().buffer));
  }
  assert.equal(read.length, 2 * flat);
  assert.ok(read.every((value, i) => value === (i < flat ? i : -(i - flat))));
  assert.throws(() => readLeaf(segments, count), /out of range/);
  assert.throws(() => readLeaf(segments, -1), /out of range/);
});

test('leaves written elsewhere make the same state, and a copied leaf does not follow its source', () => {
  const copy = segmentsOf(() => 0);
  for (let index = 0; index < leafCount(flat); index++) writeLeaf(copy, index, readLeaf(segments, index));
  assert.equal(hashOf(copy), hashOf(segments));
  const leaf = readLeaf(copy, 0);
  copy[0]!.slabs.base[0] = 7;
  assert.equal(new Float32Array(leaf.slice().buffer)[0], 0);
  assert.throws(() => writeLeaf(copy, 0, leaf.subarray(4)), /another size/);
});

test('the state hash is that of the flat vectors, and of the root', () => {
  const vector = (kind: 'base' | 'velocity') => {
    const out = new Float32Array(flat);
    for (const { slabs, offset } of segments) out.set(slabs[kind], offset);
    return out;
  };
  const leaves = flatLeafHashes(vector('base'), vector('velocity'));
  assert.deepEqual(leaves, leafHashes(segments));
  const root = merkleLevels(leaves).at(-1)![0]!;
  assert.deepEqual(stateHashOfRoot(plan, 3, leaves.length, root), stateHash(plan, 3, leaves));
});

test('plan, round, every weight and every momentum are in the hash, the sign of a zero too', () => {
  const hash = hashOf(segments);
  assert.notEqual(hashOf(segments, 4), hash);
  assert.notEqual(toHex(stateHash(new Uint8Array(32), 3, leafHashes(segments))), hash);
  for (const kind of ['base', 'velocity'] as const)
    for (const at of [0, 65_535, 65_536, flat - 1])
      assert.notEqual(
        hashOf(segmentsOf((i, k) => (k === kind && i === at ? 0.5 : k === 'base' ? i : -i))),
        hash,
      );
  const zero = segmentsOf(() => 0);
  assert.notEqual(hashOf(segmentsOf((i) => (i === 5 ? -0 : 0))), hashOf(zero));
});

test('property: a leaf is proved by its own proof and no other', () => {
  const leaves = leafHashes(segments);
  const levels = merkleLevels(leaves);
  const root = levels.at(-1)![0]!;
  const index = fc.nat(leaves.length - 1);
  fc.assert(
    fc.property(index, index, fc.nat(1000), (one, other, at) => {
      const bytes = readLeaf(segments, one);
      const proof = proofFromLevels(levels, one);
      assert.ok(verifyMerkleProof(root, leaves.length, one, bytes, proof));
      if (other !== one) assert.ok(!verifyMerkleProof(root, leaves.length, other, bytes, proof));
      bytes[at]! ^= 1;
      assert.ok(!verifyMerkleProof(root, leaves.length, one, bytes, proof));
    }),
    { numRuns: 10 },
  );
});
