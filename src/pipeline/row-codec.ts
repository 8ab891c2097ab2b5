/**
 * Rows of the residual stream and of its gradient on the wire: f32, bf16, or int8 in blocks. It knows lengths and
 * numbers, not shapes, peers or messages. Numbers are little-endian.
 *
 * int8: one f32 scale (largest magnitude ÷ 127) for each block of 256 elements, all scales first, then one byte for each
 * element. Source: Dettmers, 8-Bit Optimizers via Block-wise Quantization (2021), with linear instead of dynamic levels.
 */
import { accept, type Outcome, reject } from '../std/outcome.ts';

export const rowCodecs = ['f32', 'bf16', 'int8'] as const;
export type RowCodec = (typeof rowCodecs)[number];

const blockLength = 256;
const levelsMax = 127;
const floatMax = 3.4028234663852886e38;
/** So that no byte times a scale is infinite, −128 of a hostile sender included. */
const scaleMax = floatMax / 128;

const magnitudeBits = 0x7fff_ffff;
/** Bits of +infinity: magnitudes from here on are no finite numbers. */
const infinityBits = 0x7f80_0000;
/** The least magnitude that rounds beyond the largest finite bf16 (a tie, and that one's last bit is odd). */
const bf16OverflowBits = 0x7f7f_8000;
const bf16Max = 0x7f7f;
const bf16NaN = 0x7fc0;

/** Bytes of `length` encoded elements, exactly. */
export function rowBytes(codec: RowCodec, length: number): number {
  if (codec === 'f32') return 4 * length;
  if (codec === 'bf16') return 2 * length;
  return length + 4 * Math.ceil(length / blockLength);
}

/**
 * Fresh bytes. bf16 rounds to nearest even and saturates at its largest finite number. Numbers that are not finite stay
 * such, so that the receiver refuses the rows of a model that has overflowed.
 */
export function encodeRows(rows: Float32Array, codec: RowCodec): Uint8Array {
  if (codec === 'f32') {
    const copy = rows.slice();
    return new Uint8Array(copy.buffer);
  }
  return codec === 'bf16' ? encodeBf16(rows) : encodeInt8(rows);
}

/** Rows of one's own, all finite; rejects with `wrong-length` or `not-finite`. */
export function decodeRows(bytes: Uint8Array, codec: RowCodec, length: number): Outcome<Float32Array> {
  const wanted = rowBytes(codec, length);
  if (bytes.length !== wanted) return reject('wrong-length', `${bytes.length} bytes of rows, not ${wanted}`);
  const rows = new Float32Array(length);
  return decoders[codec](bytes, rows) ? accept(rows) : reject('not-finite');
}

/** Each fills the rows and says whether all are finite. */
const decoders: Record<RowCodec, (bytes: Uint8Array, rows: Float32Array) => boolean> = {
  f32: decodeF32,
  bf16: decodeBf16,
  int8: decodeInt8,
};

/** Signed, so that the machine code stays in 32-bit integers. */
function bitsOf(rows: Float32Array): Int32Array {
  return new Int32Array(rows.buffer, rows.byteOffset, rows.length);
}

/** What a message holds may start at any address; views of numbers may not. */
function aligned(bytes: Uint8Array, to: number): Uint8Array {
  return bytes.byteOffset % to === 0 ? bytes : bytes.slice();
}

function encodeBf16(rows: Float32Array): Uint8Array {
  const halves = new Uint16Array(rows.length);
  roundToBf16(bitsOf(rows), halves);
  return new Uint8Array(halves.buffer);
}

/** Ends with its loop: V8 throws optimized code away when code follows that it has not seen run. */
function roundToBf16(bits: Int32Array, halves: Uint16Array): void {
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    let half = ((word + 0x7fff + ((word >>> 16) & 1)) | 0) >>> 16;
    if ((word & magnitudeBits) >= bf16OverflowBits) half = overflowOf(word);
    halves[i] = half;
  }
}

function overflowOf(word: number): number {
  return ((word >>> 16) & 0x8000) | ((word & magnitudeBits) < infinityBits ? bf16Max : bf16NaN);
}

function decodeF32(bytes: Uint8Array, rows: Float32Array): boolean {
  new Uint8Array(rows.buffer).set(bytes);
  const bits = bitsOf(rows);
  let largest = 0;
  for (let i = 0; i < bits.length; i++) {
    const magnitude = bits[i]! & magnitudeBits;
    if (magnitude > largest) largest = magnitude;
  }
  return largest < infinityBits;
}

function decodeBf16(bytes: Uint8Array, rows: Float32Array): boolean {
  const source = aligned(bytes, 2);
  const halves = new Uint16Array(source.buffer, source.byteOffset, rows.length);
  const bits = bitsOf(rows);
  let largest = 0;
  for (let i = 0; i < bits.length; i++) {
    const half = halves[i]!;
    const magnitude = half & 0x7fff;
    if (magnitude > largest) largest = magnitude;
    bits[i] = half << 16;
  }
  return largest <= bf16Max;
}

function encodeInt8(rows: Float32Array): Uint8Array {
  const { length } = rows;
  const bits = bitsOf(rows);
  const bytes = new Uint8Array(rowBytes('int8', length));
  const scales = new Float32Array(bytes.buffer, 0, Math.ceil(length / blockLength));
  const levels = new Int8Array(bytes.buffer, scales.byteLength);
  const largest = new Float32Array(1);
  const largestBits = new Int32Array(largest.buffer);
  for (let block = 0, start = 0; start < length; block++, start += blockLength) {
    const end = Math.min(start + blockLength, length);
    // Magnitudes compare as their bits do, and what is not finite is above all that is.
    let most = 0;
    for (let i = start; i < end; i++) {
      const magnitude = bits[i]! & magnitudeBits;
      if (magnitude > most) most = magnitude;
    }
    largestBits[0] = most;
    if (most >= infinityBits) {
      scales[block] = Number.NaN;
      continue;
    }
    scales[block] = Math.min(largest[0]! / levelsMax, scaleMax);
    const scale = scales[block]!;
    // A scale among the subnormals is coarse, or 0: then levels go beyond 127, or are all 0.
    const inverse = scale > 0 ? 1 / scale : 0;
    for (let i = start; i < end; i++) {
      const scaled = Math.min(Math.max(rows[i]! * inverse, -levelsMax), levelsMax);
      levels[i] = ((scaled + 128.5) | 0) - 128;
    }
  }
  return bytes;
}

function decodeInt8(bytes: Uint8Array, rows: Float32Array): boolean {
  const source = aligned(bytes, 4);
  const scales = new Float32Array(source.buffer, source.byteOffset, Math.ceil(rows.length / blockLength));
  const levels = new Int8Array(source.buffer, source.byteOffset + scales.byteLength, rows.length);
  for (let block = 0, start = 0; start < rows.length; block++, start += blockLength) {
    const scale = scales[block]!;
    if (!(scale >= 0 && scale <= scaleMax)) return false;
    const end = Math.min(start + blockLength, rows.length);
    for (let i = start; i < end; i++) rows[i] = levels[i]! * scale;
  }
  return true;
}
