/**
 * The kernels in plain TypeScript, over any views: the slow, obvious definition of what the wasm kernels compute,
 * bit for bit. Its allocator only mimics the other's interface.
 */
import { assert } from '../../std/assert.ts';
import { adamwConstants } from './adamw-constants.ts';
import { assertEncoded, assertRanks, assertScatter, rowLength, sameLength } from './arguments.ts';
import { blockCodecs } from './blocks.ts';
import { type HostKernels, type KernelMemory, reductionBlock } from './kernels.ts';
import { blockBytes, blockLength } from './layout.ts';

const { fround } = Math;

export function createOracleMemory({ bytes }: { bytes: number }): KernelMemory {
  let used = 0;
  const take = (length: number) => {
    const next = used + Math.ceil(length / 64) * 64;
    if (next > bytes)
      throw new RangeError(`kernel memory is used up: ${length} bytes wanted, ${bytes - used} left`);
    used = next;
    return new ArrayBuffer(length);
  };
  return {
    ...oracleKernels,
    allocF32: (length) => new Float32Array(take(4 * length)),
    allocI32: (length) => new Int32Array(take(4 * length)),
    allocBytes: (length) => new Uint8Array(take(length)),
    mark: () => used,
    reset: (position) => {
      assert(position >= 0 && position <= used, 'reset to a position that mark() did not give');
      used = position;
    },
  };
}

/** The reduction order of `reductionBlock`. */
function dot(a: Float32Array, b: Float32Array, carry = 0): number {
  sameLength(a, b);
  let total = carry;
  for (let start = 0; start < a.length; start += reductionBlock) {
    const end = Math.min(start + reductionBlock, a.length);
    const vectorEnd = end - ((end - start) % 4);
    const lanes = [0, 0, 0, 0];
    for (let i = start; i < vectorEnd; i++) lanes[i % 4]! += a[i]! * b[i]!;
    let block = lanes[0]! + lanes[2]! + (lanes[1]! + lanes[3]!);
    for (let i = vectorEnd; i < end; i++) block += a[i]! * b[i]!;
    total += block;
  }
  return total;
}

export const oracleKernels: HostKernels = {
  sumSquares: (x, carry = 0) => dot(x, x, carry),
  dot,
  allFinite: (x) => x.every((value) => Number.isFinite(value)),
  subtract: (out, a, b) => {
    sameLength(out, a, b);
    for (let i = 0; i < out.length; i++) out[i] = a[i]! - b[i]!;
  },
  addScaled: (y, x, s) => {
    sameLength(y, x);
    const factor = fround(s);
    for (let i = 0; i < y.length; i++) y[i] = y[i]! + fround(x[i]! * factor);
  },
  scale: (x, s) => {
    const factor = fround(s);
    for (let i = 0; i < x.length; i++) x[i] = x[i]! * factor;
  },
  adamw: (w, g, m, v, options) => {
    sameLength(w, g, m, v);
    const constants = adamwConstants(options);
    const decay = fround(constants.decay);
    const blend1 = fround(constants.oneMinusBeta1);
    const keep2 = fround(options.beta2);
    const blend2 = fround(constants.oneMinusBeta2);
    const stepSize = fround(constants.stepSize);
    const root = fround(constants.rootCorrection2);
    const epsilon = fround(options.epsilon);
    const gradientScale = fround(options.gradientScale);
    for (let i = 0; i < w.length; i++) {
      const gradient = fround(g[i]! * gradientScale);
      const mean = fround(m[i]! + fround(blend1 * fround(gradient - m[i]!)));
      const square = fround(fround(keep2 * v[i]!) + fround(fround(blend2 * gradient) * gradient));
      const denominator = fround(fround(fround(Math.sqrt(square)) / root) + epsilon);
      m[i] = mean;
      v[i] = square;
      w[i] = fround(w[i]! * decay) - fround(fround(stepSize * mean) / denominator);
    }
  },
  scatterAddRows: (table, ids, rows, width) => {
    assertScatter(table, ids, rows, width);
    for (const [i, id] of ids.entries()) {
      for (let j = 0; j < width; j++) table[id * width + j] = table[id * width + j]! + rows[i * width + j]!;
    }
  },
  outerStep: (w, v, g, learningRate, momentum) => {
    sameLength(w, v, g);
    const eta = fround(learningRate);
    const mu = fround(momentum);
    for (let i = 0; i < w.length; i++) {
      const velocity = fround(fround(mu * v[i]!) + g[i]!);
      v[i] = velocity;
      w[i] = w[i]! - fround(eta * fround(fround(mu * velocity) + g[i]!));
    }
  },
  gram: (rows, sums) => {
    const n = rows.length;
    rowLength(rows);
    assert(sums.length === n * n, 'gram: sums must hold rows × rows');
    for (let i = 0; i < n; i++) {
      for (let j = i; j < n; j++) sums[i * n + j] = dot(rows[i]!, rows[j]!, sums[i * n + j]!);
    }
  },
  combineRows: (out, rows, coefficients) => {
    const n = rows.length;
    rowLength(rows);
    sameLength(out, rows[0]!);
    assert(coefficients.length === n, 'one coefficient for each row');
    for (let k = 0; k < out.length; k++) {
      let sum = 0;
      for (let i = 0; i < n; i++) sum += coefficients[i]! * rows[i]![k]!;
      out[k] = sum;
    }
  },
  orderMean: (out, rows, scales, from, to) => {
    const n = rows.length;
    sameLength(out, ...rows);
    rowLength(rows);
    assertRanks(scales, n, from, to);
    const column = new Float64Array(n);
    for (let k = 0; k < out.length; k++) {
      for (let i = 0; i < n; i++) column[i] = fround(fround(scales[i]!) * rows[i]![k]!);
      column.sort();
      let sum = 0;
      for (let rank = from; rank < to; rank++) sum += column[rank]!;
      out[k] = sum / (to - from);
    }
  },
  encode: (layout, out, x) => {
    assertEncoded(layout, out, x);
    let at = 0;
    for (let start = 0; start < x.length; start += blockLength[layout]) {
      const block = x.subarray(start, start + blockLength[layout]);
      const size = blockBytes(layout, block.length);
      blockCodecs[layout].encode(out.subarray(at, at + size), block);
      at += size;
    }
  },
  decode: (layout, out, bytes) => {
    assertEncoded(layout, bytes, out);
    let at = 0;
    for (let start = 0; start < out.length; start += blockLength[layout]) {
      const block = out.subarray(start, start + blockLength[layout]);
      const size = blockBytes(layout, block.length);
      blockCodecs[layout].decode(block, bytes.subarray(at, at + size));
      at += size;
    }
  },
};
