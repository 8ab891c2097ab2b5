/**
 * The local state of a replica at a point inside a round, as Merkle leaves: local weights, both moments and error
 * feedback. A node commits to its hash every few steps, so that what it did in between can be done again by others. Leaves
 * are cut like those of the agreed state, so the weights of a round's start have the very leaf hashes of w_r.
 */
import { z } from 'zod';
import { forEachPiece, type Segment } from '../optim/segments.ts';
import { assert } from '../std/assert.ts';
import { bytesOf, concatBytes, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { merkleLeaf, merkleRoot } from '../std/merkle.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { leafLength, stateHash } from './state.ts';

/** In the order of their leaves. */
export const localTensors = ['weights', 'firstMoments', 'secondMoments', 'errorFeedback'] as const;
export type LocalTensor = (typeof localTensors)[number];

/** Where in its training a replica stood. */
export interface LocalPlace {
  readonly round: number;
  /** Inner steps made in the round. */
  readonly step: number;
  /** AdamW steps since the moments began. */
  readonly optimizerSteps: number;
}

/** Leaves of one tensor. */
export function leavesPerTensor(flat: number): number {
  return Math.ceil(flat / leafLength);
}

/** Flat range of leaf `index` of a tensor. */
export function tensorLeafRange(flat: number, index: number): readonly [start: number, end: number] {
  assert(index >= 0 && index < leavesPerTensor(flat), 'leaf out of range');
  return [index * leafLength, Math.min(flat, (index + 1) * leafLength)];
}

/** Leaf hashes of one tensor where it lies in the segments. */
export function segmentLeafHashes(segments: readonly Segment[], tensor: LocalTensor, flat: number) {
  const buffer = new Float32Array(leafLength);
  return Array.from({ length: leavesPerTensor(flat) }, (_, index) => {
    const [start, end] = tensorLeafRange(flat, index);
    forEachPiece(segments, start, end, (segment, from, to, flatFrom) => {
      buffer.set(segment.slabs[tensor].subarray(from, to), flatFrom - start);
    });
    return merkleLeaf(bytesOf(buffer.subarray(0, end - start)));
  });
}

/** Leaf hashes of a tensor of zeros. */
export function zeroLeafHashes(flat: number): Uint8Array[] {
  const count = leavesPerTensor(flat);
  const hash = (index: number) => {
    const [start, end] = tensorLeafRange(flat, index);
    return merkleLeaf(new Uint8Array(4 * (end - start)));
  };
  const whole = hash(0);
  return Array.from({ length: count }, (_, index) => (index === count - 1 ? hash(index) : whole));
}

/** H(plan, r, step, optimizer steps, leaf count, Merkle root). `leaves` are those of `localTensors`, one after another. */
export function localStateHash(
  plan: Uint8Array,
  { round, step, optimizerSteps }: LocalPlace,
  leaves: readonly Uint8Array[],
): HashHex {
  const position = new DataView(new ArrayBuffer(28));
  position.setBigUint64(0, BigInt(round), true);
  position.setBigUint64(8, BigInt(step), true);
  position.setBigUint64(16, BigInt(optimizerSteps), true);
  position.setUint32(24, leaves.length, true);
  const place = new Uint8Array(position.buffer);
  return toHex(taggedHash('neuroshard/local-state/1', plan, place, merkleRoot(leaves)));
}

/** All leaf hashes of a state and what else its hash is made of: whoever has it can check any leaf alone. */
export type StateIndex =
  | { readonly kind: 'local'; readonly place: LocalPlace; readonly leaves: readonly Uint8Array[] }
  | { readonly kind: 'agreed'; readonly round: number; readonly leaves: readonly Uint8Array[] };

export function hashOfIndex(plan: Uint8Array, index: StateIndex): HashHex {
  if (index.kind === 'local') return localStateHash(plan, index.place, index.leaves);
  return toHex(stateHash(plan, index.round, index.leaves));
}

/** Of an encoded index: states of up to 500 million elements. */
export const stateIndexBytesMax = 1024 * 1024;

export function encodeStateIndex(index: StateIndex): Uint8Array {
  const leaves = concatBytes(...index.leaves);
  if (index.kind === 'agreed') return encodeCanonical([index.round, leaves]);
  const { round, step, optimizerSteps } = index.place;
  return encodeCanonical([round, step, optimizerSteps, leaves]);
}

const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const leavesSchema = z.instanceof(Uint8Array).refine((value) => value.length > 0 && value.length % 32 === 0);
const indexSchema = z.union([
  z.tuple([counter, leavesSchema]),
  z.tuple([counter, counter, counter, leavesSchema]),
]);

/** Decodes untrusted bytes: `malformed-index`. Whether it is the index of a state says `hashOfIndex`. */
export function decodeStateIndex(bytes: Uint8Array): Outcome<StateIndex> {
  const decoded = decodeCanonical(bytes, stateIndexBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = indexSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed-index');
  const fields = parsed.data;
  const joined = fields.at(-1) as Uint8Array;
  const leaves = Array.from({ length: joined.length / 32 }, (_, i) => joined.slice(32 * i, 32 * i + 32));
  if (fields.length === 2) return accept({ kind: 'agreed', round: fields[0], leaves });
  const [round, step, optimizerSteps] = fields;
  return accept({ kind: 'local', place: { round, step, optimizerSteps }, leaves });
}
