/**
 * Geometry of points given by a Gram matrix: a point is a list of coefficients over the rows, so that iterative rules
 * never touch the rows themselves. f64 with + − × ÷ √ in fixed order, hence the same on every node.
 */
import { reductionBlock } from '../../tensor/kernels/kernels.ts';
import type { RowStream } from './stream.ts';

/** Inner products of `size` rows; symmetric, row-major. */
export interface Gram {
  readonly size: number;
  readonly products: Float64Array;
}

/** A point Σ a[i]·row i. */
export type Coefficients = readonly number[];

/** The kernels fill the upper triangle only. */
export function symmetric(products: Float64Array, size: number): Gram {
  for (let i = 0; i < size; i++) for (let j = 0; j < i; j++) products[i * size + j] = products[j * size + i]!;
  return { size, products };
}

/** Gram matrix of the contributions alone: one read. */
export function gramOfRows(stream: RowStream): Gram {
  const products = new Float64Array(stream.n * stream.n);
  stream.forEachChunk(({ rows }) => stream.kernels.gram(rows, products));
  return symmetric(products, stream.n);
}

/**
 * Gram matrix of the rows scaled[i] = scales[i]·row i and, last, of their coordinate median: one read. Row scales act
 * on the matrix; the median is taken of the scaled values.
 */
export function gramWithMedian(stream: RowStream, scales: readonly number[]): Gram {
  const size = stream.n + 1;
  const products = new Float64Array(size * size);
  stream.forEachChunk(({ rows, median }) => {
    medianOf(stream, median, rows, scales);
    stream.kernels.gram([...rows, median], products);
  });
  const gram = symmetric(products, size);
  const all = [...scales, 1];
  for (let i = 0; i < size; i++) {
    for (let j = 0; j < size; j++) gram.products[i * size + j]! *= all[i]! * all[j]!;
  }
  return gram;
}

/** out = coordinate median of scales[i]·rows[i]; the mean of the two middle values where n is even. */
export function medianOf(
  stream: RowStream,
  out: Float32Array,
  rows: readonly Float32Array[],
  scales: readonly number[],
): void {
  const n = rows.length;
  stream.kernels.orderMean(out, rows, scales, Math.floor((n - 1) / 2), Math.floor(n / 2) + 1);
}

export function squaredNorms(stream: RowStream): number[] {
  const sums = new Array<number>(stream.n).fill(0);
  stream.forEachChunk(({ rows }) => {
    for (const [i, row] of rows.entries()) sums[i] = stream.kernels.sumSquares(row, sums[i]!);
  });
  return sums;
}

/** Squared norm of each contribution in each block of `reductionBlock` elements: [row][block]. */
export function blockSquares(stream: RowStream): Float64Array[] {
  const blocks = Math.ceil(stream.length / reductionBlock);
  const squares = Array.from({ length: stream.n }, () => new Float64Array(blocks));
  stream.forEachChunk(({ start, rows }) => {
    for (const [i, row] of rows.entries()) {
      for (let from = 0; from < row.length; from += reductionBlock) {
        const block = row.subarray(from, from + reductionBlock);
        squares[i]![(start + from) / reductionBlock] = stream.kernels.sumSquares(block);
      }
    }
  });
  return squares;
}

/** ‖row i − point‖, never negative by rounding. */
export function distanceTo(gram: Gram, i: number, point: Coefficients): number {
  return norm(
    gram,
    point.map((a, j) => (j === i ? 1 - a : -a)),
  );
}

export function norm(gram: Gram, point: Coefficients): number {
  let sum = 0;
  for (let i = 0; i < gram.size; i++) {
    let row = 0;
    for (let j = 0; j < gram.size; j++) row += point[j]! * gram.products[i * gram.size + j]!;
    sum += point[i]! * row;
  }
  return Math.sqrt(Math.max(0, sum));
}

/**
 * The lower middle of the values: with two it is the smaller, so that one of two cannot raise a threshold taken from
 * the median.
 */
export function lowerMedian(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor((values.length - 1) / 2)]!;
}

/** min(1, most / length); 1 for a length of zero. */
export function clipScale(length: number, most: number): number {
  return length > most ? most / length : 1;
}
