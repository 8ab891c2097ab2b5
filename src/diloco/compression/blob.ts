/**
 * A contribution blob: a 16-byte header and the payload of one codec. Written and read range by range, because the
 * flat vector of a stage lies in several memories; checked as a whole before anything of it is used.
 * Header: "NSC", version 1, codec id, three zero bytes, length as u64; all little-endian.
 */
import { assert } from '../../std/assert.ts';
import { sharedBytes } from '../../std/bytes.ts';
import { accept, CodedError, type Outcome, reject } from '../../std/outcome.ts';
import type { KernelMemory } from '../../tensor/kernels/kernels.ts';
import type { Codec, CodecName } from './codec.ts';
import { codecs } from './codecs.ts';

export const headerBytes = 16;
const magic = [0x4e, 0x53, 0x43, 1];

/** Exact size of every blob of `length` elements. */
export function blobBytes(codec: CodecName, length: number): number {
  return headerBytes + codecs[codec].payloadBytes(length);
}

/** A blob with its header; every range is then written by `encodeRange`. `length` ≥ 1. */
export function createBlob(codec: CodecName, length: number): Uint8Array {
  assert(Number.isSafeInteger(length) && length >= 1, `a vector of ${length} elements`);
  const blob = sharedBytes(blobBytes(codec, length));
  blob.set(headerOf(codecs[codec], length));
  return blob;
}

function headerOf(codec: Codec, length: number): Uint8Array {
  const header = new Uint8Array(headerBytes);
  header.set(magic);
  header[4] = codec.id;
  new DataView(header.buffer).setBigUint64(8, BigInt(length), true);
  return header;
}

export interface BlobShape {
  readonly codec: CodecName;
  /** Elements of the flat vector. */
  readonly length: number;
}

function payloadRange(blob: Uint8Array, shape: BlobShape, start: number, length: number): Uint8Array {
  const codec = codecs[shape.codec];
  const end = start + length;
  assert(blob.length === blobBytes(shape.codec, shape.length), 'blob of another size');
  assert(start % codec.blockLength === 0, `range from ${start} begins inside a block`);
  assert(end % codec.blockLength === 0 || end === shape.length, `range to ${end} ends inside a block`);
  assert(length >= 0 && end <= shape.length, `range to ${end} of ${shape.length}`);
  const from = headerBytes + codec.payloadBytes(start);
  return blob.subarray(from, from + codec.payloadBytes(length));
}

/**
 * Writes elements [start, start + x.length), in whole blocks. `x` lies in the memory of `kernels`. Throws the coded
 * error `not-finite` when this node's own training has diverged.
 */
export function encodeRange(
  blob: Uint8Array,
  shape: BlobShape,
  start: number,
  x: Float32Array,
  kernels: KernelMemory,
): void {
  if (!kernels.allFinite(x)) throw new CodedError('not-finite', 'the pseudo-gradient holds NaN or infinity');
  codecs[shape.codec].encode(payloadRange(blob, shape, start, x.length), x, kernels);
}

/** out = elements [start, start + out.length) of a checked blob. `out` lies in `kernels`' memory. */
export function decodeRange(
  blob: Uint8Array,
  shape: BlobShape,
  start: number,
  out: Float32Array,
  kernels: KernelMemory,
): void {
  codecs[shape.codec].decode(out, payloadRange(blob, shape, start, out.length), kernels);
}

/**
 * Whether untrusted bytes are the one canonical encoding of finite values of this shape. Codes: `truncated`,
 * `oversize`, `malformed-blob`, `wrong-codec`, `wrong-length`, `not-finite`, `bad-scale`, `bad-index`, `not-canonical`.
 */
export function checkBlob(bytes: Uint8Array, shape: BlobShape): Outcome<void> {
  const codec = codecs[shape.codec];
  if (bytes.length < headerBytes) return reject('truncated', `${bytes.length} bytes`);
  const expected = headerOf(codec, shape.length);
  for (const [i, byte] of expected.entries()) {
    if (bytes[i] === byte) continue;
    if (i === 4) return reject('wrong-codec', `codec ${bytes[4]}, not ${shape.codec}`);
    if (i >= 8) return reject('wrong-length', `not ${shape.length} elements`);
    return reject('malformed-blob', 'not a contribution blob of this version');
  }
  const size = blobBytes(shape.codec, shape.length);
  if (bytes.length < size) return reject('truncated', `${bytes.length} bytes, not ${size}`);
  if (bytes.length > size) return reject('oversize', `${bytes.length} bytes, not ${size}`);
  return codec.check(bytes.subarray(headerBytes), shape.length) ?? accept(undefined);
}
