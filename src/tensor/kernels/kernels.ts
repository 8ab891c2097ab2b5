/**
 * Host kernels: what runs beside the engine on weights, moments and contributions. Two implementations, one contract
 * suite: `wasm` (SIMD, views must lie in the memory it was made for) and `oracle` (plain TypeScript). Both give
 * the same bits: every reduction's order is part of its definition, arithmetic is f32/f64 +, −, ×, ÷, √ only.
 */

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
  /** Σ x² in f64; partial sums are combined in a fixed order. */
  sumSquares(x: Float32Array): number;
  /** Σ a·b in f64, same order. */
  dot(a: Float32Array, b: Float32Array): number;
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
