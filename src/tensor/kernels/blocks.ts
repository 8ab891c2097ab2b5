/**
 * The bytes of one encoded block, in plain TypeScript: int8, int4 and the sparse form. Encoding takes finite values
 * only; decoding trusts its bytes (`diloco/compression` checks those of peers first).
 */
import { type BlockLayout, keptOf } from './layout.ts';

export interface BlockCodec {
  encode(out: Uint8Array, x: Float32Array): void;
  decode(out: Float32Array, bytes: Uint8Array): void;
}

const { fround } = Math;

/** A scale below the smallest normal f32 is written as zero: the largest code of other blocks is exactly the limit. */
const normalMin = 2 ** -126;

/** Half to even, for |x| < 2^22: adding 1.5·2^23 leaves no fraction bits. */
export function roundHalfEven(x: number): number {
  return fround(fround(x + 12582912) - 12582912);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** absmax / limit in f32, or 0. */
function scaleOf(x: Float32Array, limit: number): number {
  const scale = fround(x.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / limit);
  return scale < normalMin ? 0 : scale;
}

const int8: BlockCodec = {
  encode: (out, x) => {
    out.fill(0);
    const scale = scaleOf(x, 127);
    if (scale === 0) return;
    viewOf(out).setFloat32(0, scale, true);
    for (let i = 0; i < x.length; i++) out[4 + i] = roundHalfEven(fround(x[i]! / scale));
  },
  decode: (out, bytes) => {
    const view = viewOf(bytes);
    const scale = view.getFloat32(0, true);
    for (let i = 0; i < out.length; i++) out[i] = view.getInt8(4 + i) * scale;
  },
};

/** Two's complement nibbles, the even element low; the last nibble of an odd block is zero. */
const int4: BlockCodec = {
  encode: (out, x) => {
    out.fill(0);
    const scale = scaleOf(x, 7);
    if (scale === 0) return;
    viewOf(out).setFloat32(0, scale, true);
    for (let i = 0; i < x.length; i++) {
      const code = roundHalfEven(fround(x[i]! / scale)) & 15;
      out[4 + (i >> 1)] = out[4 + (i >> 1)]! | (i % 2 === 0 ? code : code << 4);
    }
  },
  decode: (out, bytes) => {
    const scale = viewOf(bytes).getFloat32(0, true);
    for (let i = 0; i < out.length; i++) {
      const packed = bytes[4 + (i >> 1)]!;
      const code = ((i % 2 === 0 ? packed : packed >> 4) << 28) >> 28;
      out[i] = code * scale;
    }
  },
};

const floatBits = new DataView(new ArrayBuffer(4));

function bitsOf(x: number): number {
  floatBits.setFloat32(0, x);
  return floatBits.getUint32(0);
}

/** f32 to bf16 bits, half to even, never to infinity. `x` is not negative. */
function toBf16(x: number): number {
  const bits = bitsOf(fround(x));
  return Math.min((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16, 0x7f7f);
}

export function fromBf16(bits: number): number {
  floatBits.setUint32(0, bits * 65536);
  return floatBits.getFloat32(0);
}

/**
 * Two levels for `sorted` (ascending magnitudes) with the least squared error over all splits: elements ≥ `split`
 * take `high`. One level (split = ∞) when no split is better or both round to the same bf16.
 */
function fitLevels(sorted: readonly number[]): { low: number; high: number; split: number } {
  const k = sorted.length;
  let total = 0;
  for (const value of sorted) total += value;
  let best = (total * total) / k;
  let fit = { low: total / k, high: total / k, split: Infinity };
  let below = 0;
  for (let i = 1; i < k; i++) {
    below += sorted[i - 1]!;
    if (sorted[i] === sorted[i - 1]) continue;
    const above = total - below;
    const gain = (below * below) / i + (above * above) / (k - i);
    if (gain <= best) continue;
    best = gain;
    fit = { low: below / i, high: above / (k - i), split: sorted[i]! };
  }
  const low = toBf16(fit.low);
  const high = toBf16(fit.high);
  return { low, high, split: low === high ? Infinity : fit.split };
}

/** Byte offsets of the parts of a sparse chunk that keeps `kept` elements. */
export function sparseParts(kept: number): { buckets: number; places: number; codes: number } {
  const places = 4 + Math.ceil((2 * kept) / 8);
  return { buckets: 4, places, codes: places + Math.ceil((6 * kept) / 8) };
}

function setBits(bytes: Uint8Array, bit: number, width: number, value: number): void {
  for (let i = 0; i < width; i++) {
    if ((value >> i) & 1) bytes[(bit + i) >> 3] = bytes[(bit + i) >> 3]! | (1 << ((bit + i) & 7));
  }
}

export function getBits(bytes: Uint8Array, bit: number, width: number): number {
  let value = 0;
  for (let i = 0; i < width; i++) value |= ((bytes[(bit + i) >> 3]! >> ((bit + i) & 7)) & 1) << i;
  return value;
}

/**
 * Top-k of one chunk. Bytes: lo, hi (bf16 magnitudes, little-endian); buckets in unary (for each 64 places as many
 * ones as it keeps, then a zero); the 6 low bits of each index; two-bit codes (1: hi, 2: negative). Indices in this
 * Elias-Fano form take 8 bits instead of 12. Sources: SparseLoCo (arXiv 2508.15706) for the scheme; Elias 1974 and
 * Fano 1971 for the indices.
 */
const sparse: BlockCodec = {
  encode: (out, x) => {
    out.fill(0);
    const kept = keptOf(x.length);
    const byMagnitude = Array.from(x, (_, i) => i).sort((a, b) => Math.abs(x[b]!) - Math.abs(x[a]!) || a - b);
    const indices = byMagnitude.slice(0, kept).sort((a, b) => a - b);
    const { low, high, split } = fitLevels(indices.map((i) => Math.abs(x[i]!)).sort((a, b) => a - b));
    const { buckets, places, codes } = sparseParts(kept);
    viewOf(out).setUint16(0, low, true);
    viewOf(out).setUint16(2, high, true);
    for (const [i, index] of indices.entries()) {
      // Values too small for any level make a zero chunk, which has one form: the first places, all codes zero.
      const place = high === 0 ? i : index;
      const isHigh = Math.abs(x[index]!) >= split;
      const isNegative = x[index]! < 0 && (isHigh ? high : low) !== 0;
      setBits(out, 8 * buckets + (place >> 6) + i, 1, 1);
      setBits(out, 8 * places + 6 * i, 6, place & 63);
      setBits(out, 8 * codes + 2 * i, 2, (isHigh ? 1 : 0) | (isNegative ? 2 : 0));
    }
  },
  decode: (out, bytes) => {
    out.fill(0);
    const kept = keptOf(out.length);
    const { buckets, places, codes } = sparseParts(kept);
    const levels = [fromBf16(viewOf(bytes).getUint16(0, true)), fromBf16(viewOf(bytes).getUint16(2, true))];
    let i = 0;
    for (let bit = 0; bit < 2 * kept; bit++) {
      if (getBits(bytes, 8 * buckets + bit, 1) === 0) continue;
      const code = getBits(bytes, 8 * codes + 2 * i, 2);
      const level = levels[code & 1]!;
      out[64 * (bit - i) + getBits(bytes, 8 * places + 6 * i, 6)] = code & 2 ? -level : level;
      i++;
    }
  },
};

export const blockCodecs: Readonly<Record<BlockLayout, BlockCodec>> = { int8, int4, sparse };
