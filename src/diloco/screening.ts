/**
 * Screening: what is left out of a decided list before any aggregation rule sees it. A pure function of the list, its
 * blobs and one bound, so all honest nodes leave out the same. The bytes have passed `checkBlob`; it knows nothing of
 * rules, votes or rewards.
 */
import { equalBytes } from '../std/bytes.ts';
import type { KernelMemory } from '../tensor/kernels/kernels.ts';
import { type BlobShape, decodeRange } from './compression/blob.ts';

export interface Screened {
  readonly nodeId: string;
  /** Batches it claims, already capped. */
  readonly batches: number;
  readonly blob: Uint8Array;
}

/**
 * `zero`: no content.
 * `norm-bound`: longer than the absolute bound.
 * `norm-outlier`: many times longer than the round's median.
 * `duplicate`: the same bytes as an earlier entry, whose content therefore counts already.
 */
export type ScreeningCode = 'zero' | 'norm-bound' | 'norm-outlier' | 'duplicate';

export interface ScreeningRejection {
  readonly node: string;
  readonly code: ScreeningCode;
  readonly detail: string;
}

export interface ScreeningOptions {
  readonly shape: BlobShape;
  /** Needs room for one piece: 64 KiB decoded, and as much encoded. */
  readonly kernels: KernelMemory;
  /**
   * No honest pseudo-gradient is longer: some multiple of ‖w_r‖, the same on every node. The only bound on length
   * that holds with one or two contributions.
   */
  readonly normMax: number;
}

/** Honest nodes' lengths differ by batches and by a round carried over; clipping deals with what is below this. */
const medianRatioMax = 8;
/** With fewer, the median is not above a hostile majority of one. */
const medianFrom = 3;
/** Elements decoded at a time: a multiple of every block and of the kernels' reductions. */
const pieceLength = 16_384;

/** ‖decode(blob)‖ of a checked blob, in f64. */
export function blobNorm(blob: Uint8Array, shape: BlobShape, kernels: KernelMemory): number {
  const position = kernels.mark();
  const piece = kernels.allocF32(Math.min(pieceLength, shape.length));
  let squares = 0;
  for (let start = 0; start < shape.length; start += pieceLength) {
    const part = piece.subarray(0, shape.length - start);
    decodeRange(blob, shape, start, part, kernels);
    squares = kernels.sumSquares(part, squares);
  }
  kernels.reset(position);
  return Math.sqrt(squares);
}

/**
 * Splits a decided list, keeping its order.
 *
 * Of several entries with the same bytes the first stays. Encodings are canonical, so equal content is equal bytes; a
 * list's order is drawn by hash from a base nobody could foresee, so neither the author nor the copyist is favoured,
 * and a copyist can never have an original thrown out of the aggregate. An author whose entry is called a duplicate
 * must treat its content as taken in: its error feedback goes on as if the entry had counted.
 */
export function screen<T extends Screened>(
  list: readonly T[],
  options: ScreeningOptions,
): {
  readonly accepted: readonly T[];
  /** ‖decode(blob)‖ of each accepted entry. */
  readonly norms: readonly number[];
  readonly rejected: readonly ScreeningRejection[];
} {
  const rejected = new Map<T, Omit<ScreeningRejection, 'node'>>();
  const kept = () => list.filter((one) => !rejected.has(one));
  const refuse = (one: T, code: ScreeningCode, detail: string) => void rejected.set(one, { code, detail });

  for (const [i, one] of list.entries()) {
    const original = list.slice(0, i).find((earlier) => equalBytes(earlier.blob, one.blob));
    if (original) refuse(one, 'duplicate', `of ${original.nodeId}`);
  }
  const norms = new Map(kept().map((one) => [one, blobNorm(one.blob, options.shape, options.kernels)]));
  for (const [one, norm] of norms) {
    if (norm === 0) refuse(one, 'zero', 'nothing but zeros');
    else if (norm > options.normMax) refuse(one, 'norm-bound', `${norm} above ${options.normMax}`);
  }
  refuseOutliers(kept(), norms, refuse);
  const accepted = kept();
  return {
    accepted,
    norms: accepted.map((one) => norms.get(one)!),
    rejected: list.flatMap((one) => {
      const rejection = rejected.get(one);
      return rejection ? [{ node: one.nodeId, ...rejection }] : [];
    }),
  };
}

/** The bound grows with the batches of a node beside the median's: more steps go further, at most in proportion. */
function refuseOutliers<T extends Screened>(
  kept: readonly T[],
  norms: ReadonlyMap<T, number>,
  refuse: (one: T, code: ScreeningCode, detail: string) => void,
): void {
  if (kept.length < medianFrom) return;
  const middle = (values: readonly number[]) =>
    [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)]!;
  const usual = middle(kept.map((one) => norms.get(one)!));
  const usualBatches = middle(kept.map((one) => one.batches));
  for (const one of kept) {
    const most = medianRatioMax * usual * Math.max(1, one.batches / usualBatches);
    const norm = norms.get(one)!;
    if (norm > most) refuse(one, 'norm-outlier', `${norm} beside a median of ${usual}`);
  }
}
