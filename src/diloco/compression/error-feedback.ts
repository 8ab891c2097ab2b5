/**
 * Error feedback: what a codec loses, and what a round left out, is added to the next contribution. Works on one
 * segment of the flat vector at a time, in place; the bits are a pure function of (delta, e).
 * Sources: Seide et al. 2014; Karimireddy et al. 2019 (arXiv 1901.09847); SparseLoCo for the decay.
 */
import { assert } from '../../std/assert.ts';
import type { KernelMemory } from '../../tensor/kernels/kernels.ts';
import { type BlobShape, createBlob, decodeRange, encodeRange } from './blob.ts';
import type { CodecName } from './codec.ts';
import { codecs } from './codecs.ts';

/** e ← m = decay·e + delta, in place: what is to be encoded, and what e stays if the round leaves it out. */
export function accumulate(
  codec: CodecName,
  e: Float32Array,
  delta: Float32Array,
  kernels: KernelMemory,
): void {
  const decay = codecs[codec].feedbackDecay;
  if (decay !== 1) kernels.scale(e, decay);
  kernels.addScaled(e, delta, 1);
}

/** Elements decoded at a time: a multiple of every block. */
const pieceLength = 16_384;

/**
 * m ← m − decode(blob) over [start, start + m.length), in place: the error feedback after a round that took the
 * blob in. With f32 it is exactly zero.
 */
export function residual(
  m: Float32Array,
  blob: Uint8Array,
  shape: BlobShape,
  start: number,
  kernels: KernelMemory,
): void {
  const position = kernels.mark();
  const decoded = kernels.allocF32(Math.min(pieceLength, m.length));
  for (let from = 0; from < m.length; from += pieceLength) {
    const part = m.subarray(from, from + pieceLength);
    const piece = decoded.subarray(0, part.length);
    decodeRange(blob, shape, start + from, piece, kernels);
    kernels.subtract(part, part, piece);
  }
  kernels.reset(position);
}

/** The blob of a vector that lies in one memory; `e` becomes m. */
export function compress(
  codec: CodecName,
  delta: Float32Array,
  e: Float32Array,
  kernels: KernelMemory,
): Uint8Array {
  assert(delta.length === e.length, 'error feedback of another length');
  accumulate(codec, e, delta, kernels);
  const shape: BlobShape = { codec, length: e.length };
  const blob = createBlob(codec, e.length);
  encodeRange(blob, shape, 0, e, kernels);
  return blob;
}
