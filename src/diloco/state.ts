/**
 * The agreed state of a stage, (plan, r, w_r, v), as Merkle leaves: what every honest node must hold bit for bit, what
 * is compared each round, and what a newcomer fetches leaf by leaf from anyone. Knows no peers.
 */
import { stateHashOfRoot } from '../ledger/state-hash.ts';
import { flatLength, forEachPiece, type Segment } from '../optim/segments.ts';
import { assert } from '../std/assert.ts';
import { bytesOf } from '../std/bytes.ts';
import { merkleLeaf, merkleLevels } from '../std/merkle.ts';

/** Elements of one leaf, 256 KiB: the unit of transfer and of verification. */
export const leafLength = 65_536;

/** Leaves of the whole state: those of w_r first, then those of v. */
export function leafCount(flat: number): number {
  return 2 * Math.ceil(flat / leafLength);
}

type Kind = 'base' | 'velocity';

function leafRange(flat: number, index: number): { kind: Kind; start: number; end: number } {
  const perKind = leafCount(flat) / 2;
  assert(index >= 0 && index < 2 * perKind, 'leaf out of range');
  const start = (index % perKind) * leafLength;
  return { kind: index < perKind ? 'base' : 'velocity', start, end: Math.min(flat, start + leafLength) };
}

/** A copy of one leaf's bytes (f32 little-endian). */
export function readLeaf(segments: readonly Segment[], index: number): Uint8Array {
  return fillLeaf(segments, index, new Float32Array(leafLength)).slice();
}

/** The bytes of one leaf in `buffer`, which has room for `leafLength` elements. */
function fillLeaf(segments: readonly Segment[], index: number, buffer: Float32Array): Uint8Array {
  const { kind, start, end } = leafRange(flatLength(segments), index);
  const leaf = buffer.subarray(0, end - start);
  forEachPiece(segments, start, end, (segment, from, to, flatFrom) => {
    leaf.set(segment.slabs[kind].subarray(from, to), flatFrom - start);
  });
  return bytesOf(leaf);
}

/** Bytes of leaf `index` in a state of `flat` elements. */
export function leafBytes(flat: number, index: number): number {
  const { start, end } = leafRange(flat, index);
  return 4 * (end - start);
}

/** Writes one leaf, whose proof the caller has checked, into w_r or v. */
export function writeLeaf(segments: readonly Segment[], index: number, bytes: Uint8Array): void {
  const { kind, start, end } = leafRange(flatLength(segments), index);
  assert(bytes.length === 4 * (end - start), 'leaf of another size');
  const leaf = new Float32Array(bytes.slice().buffer);
  forEachPiece(segments, start, end, (segment, from, to, flatFrom) => {
    segment.slabs[kind].set(leaf.subarray(flatFrom - start, flatFrom - start + to - from), from);
  });
}

/** All leaf hashes, in order. */
export function leafHashes(segments: readonly Segment[]): Uint8Array[] {
  const hashes: Uint8Array[] = [];
  const count = leafCount(flatLength(segments));
  const buffer = new Float32Array(leafLength);
  for (let index = 0; index < count; index++) hashes.push(merkleLeaf(fillLeaf(segments, index, buffer)));
  return hashes;
}

/** All leaf hashes of a state held as two flat vectors, as in a snapshot. */
export function flatLeafHashes(base: Float32Array, velocity: Float32Array): Uint8Array[] {
  return [base, velocity].flatMap((flat) =>
    Array.from({ length: leafCount(flat.length) / 2 }, (_, index) =>
      merkleLeaf(bytesOf(flat.subarray(index * leafLength, (index + 1) * leafLength))),
    ),
  );
}

/** H(plan, r, leaf count, Merkle root): the state hash. `plan` names architecture and stage, 32 bytes. */
export function stateHash(plan: Uint8Array, round: number, leaves: readonly Uint8Array[]): Uint8Array {
  return stateHashOfRoot(plan, round, leaves.length, merkleLevels(leaves).at(-1)![0]!);
}
