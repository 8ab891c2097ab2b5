/**
 * Host kernels: what runs beside the engine on weights, moments and contributions. Two implementations, one contract
 * suite: `wasm` (SIMD, views must lie in the memory it was made for) and `oracle` (plain TypeScript). Both give
 * the same bits: every reduction's order is part of its definition, arithmetic is f32/f64 +, −, ×, ÷, √ only.
 */

import type { BlockLayout } from './layout.ts';

/**
 * Reductions work in blocks of this many elements: inside a block element i adds to lane i mod 4 of four, lanes
 * combine as (0 + 2) + (1 + 3), the last one to three elements follow one by one; block sums add to the carry in
 * order. So consecutive ranges that begin at multiples of the block give the same bits as the whole.
 */
export const reductionBlock = 4096;

/** Most rows of one `gram`, `combineRows` or `orderMean`: 16 contributions of a round and their median. */
export const rowsMax = 17;

export interface AdamWOptions {
  readonly learningRate: number;
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  readonly weightDecay: number;
  /** 1-based count of this step, for bias correction. */
  readonly step: number;
  /** Gradients are multiplied by this first: min(1, clip / global norm). */
  readonly gradientScale: number;
}

export interface HostKernels {
  /** carry + Σ x² in f64; partial sums are combined in a fixed order (see `reductionBlock`). */
  sumSquares(x: Float32Array, carry?: number): number;
  /** carry + Σ a·b in f64, same order. */
  dot(a: Float32Array, b: Float32Array, carry?: number): number;
  /** Whether no element is NaN or infinite. */
  allFinite(x: Float32Array): boolean;
  /** out = a − b. */
  subtract(out: Float32Array, a: Float32Array, b: Float32Array): void;
  /** y += s·x. */
  addScaled(y: Float32Array, x: Float32Array, s: number): void;
  /** x *= s. */
  scale(x: Float32Array, s: number): void;
  /** AdamW in place on w, m, v (Loshchilov and Hutter 2019; PyTorch's order: decay, moments, update). */
  adamw(w: Float32Array, g: Float32Array, m: Float32Array, v: Float32Array, options: AdamWOptions): void;
  /** table[ids[i]] += rows[i] for rows of `width`, in order of i. */
  scatterAddRows(table: Float32Array, ids: Int32Array, rows: Float32Array, width: number): void;
  /** Nesterov: v = momentum·v + g; w -= learningRate·(momentum·v + g). */
  outerStep(w: Float32Array, v: Float32Array, g: Float32Array, learningRate: number, momentum: number): void;

  /** sums[i·n + j] += row i · row j for i ≤ j; n = rows.length ≤ `rowsMax`; reduced like `dot`. */
  gram(rows: readonly Float32Array[], sums: Float64Array): void;
  /** out = Σ coefficients[i]·row i, summed in f64 in row order, then rounded once. At most `rowsMax` rows. */
  combineRows(out: Float32Array, rows: readonly Float32Array[], coefficients: readonly number[]): void;
  /**
   * For each coordinate the mean of ranks [from, to) of the values f32(scales[i]·row i) in ascending order: the
   * median and the trimmed mean. Summed in f64, rounded once; a zero comes out as +0. Nothing may be NaN.
   */
  orderMean(
    out: Float32Array,
    rows: readonly Float32Array[],
    scales: readonly number[],
    from: number,
    to: number,
  ): void;

  /** Codecs of finite values; byte counts are `encodedBytes` in `layout.ts`. */
  encode(layout: BlockLayout, out: Uint8Array, x: Float32Array): void;
  decode(layout: BlockLayout, out: Float32Array, bytes: Uint8Array): void;
}

/** A linear memory with kernels over it, and a bump allocator that never moves what it has given out. */
export interface KernelMemory extends HostKernels {
  /** Zeroed, 64-byte aligned. Throws when the size given at creation is used up. */
  allocF32(length: number): Float32Array;
  allocI32(length: number): Int32Array;
  allocBytes(length: number): Uint8Array;
  /** Frees everything allocated since `mark()` gave this position. */
  mark(): number;
  reset(position: number): void;
}
