/**
 * From local work to a contribution and what is left of it: e ← decay·e + (w_r − w_local), its blob, and e without what
 * the blob carries. Used where the work is done, and by whoever audits it: both must get the same bits.
 */
import { flatLength, type Segment } from '../optim/segments.ts';
import { sha256Hex } from '../std/hash.ts';
import { type BlobShape, createBlob, encodeRange } from './compression/blob.ts';
import type { CodecName } from './compression/codec.ts';
import { accumulate, residual } from './compression/error-feedback.ts';
import type { Contribution } from './replica.ts';

/** e ← decay·e + (w_r − w_local): the contribution before it is encoded, and what stays if it does not count. */
export function workToFeedback(segments: readonly Segment[], codec: CodecName): void {
  for (const { memory, slabs } of segments) {
    memory.subtract(slabs.scratch, slabs.base, slabs.weights);
    accumulate(codec, slabs.errorFeedback, slabs.scratch, memory);
  }
  // Steps that overflowed are worth nothing, and a contribution of nothing still lets the round be closed.
  const finite = segments.every(({ memory, slabs }) => memory.allFinite(slabs.errorFeedback));
  if (!finite) for (const { slabs } of segments) slabs.errorFeedback.fill(0);
}

/** The blob of what error feedback holds. */
export function encodeFeedback(segments: readonly Segment[], codec: CodecName): Contribution {
  const shape: BlobShape = { codec, length: flatLength(segments) };
  const blob = createBlob(codec, shape.length);
  for (const { memory, slabs, offset } of segments)
    encodeRange(blob, shape, offset, slabs.errorFeedback, memory);
  return { blob, blobHash: sha256Hex(blob) };
}

/** e ← m − decode(blob): what is left once the contribution counts. */
export function takeOut(segments: readonly Segment[], codec: CodecName, blob: Uint8Array): void {
  const shape: BlobShape = { codec, length: flatLength(segments) };
  for (const { memory, slabs, offset } of segments)
    residual(slabs.errorFeedback, blob, shape, offset, memory);
}
