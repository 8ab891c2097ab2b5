/**
 * The default rule for sparse contributions. Few of the indices that two nodes choose coincide, so medians over
 * coordinates are mostly zero and cosines between contributions are noise: what can be held is how far each may move
 * the result. So every block is clipped to a few times the median length of that block (energy cannot be heaped on a
 * few weights), every contribution to the median norm, and what it has beyond the mean of the others to the median
 * such distance. Three reads.
 */
import { reductionBlock } from '../../tensor/kernels/kernels.ts';
import { blockSquares, clipScale, distanceTo, type Gram, lowerMedian, symmetric } from './geometry.ts';
import type { Chunk, RowStream, WriteChunk } from './stream.ts';

/**
 * A block may be this many times longer than the median of that block over the contributions, or than the root mean
 * square block where most contributions have less there (rows of rare tokens).
 */
const blockClip = 2;

/** What each block of each row is multiplied by: block clip and norm clip together, in f32. [row][block]. */
export function blockScales(squares: readonly Float64Array[]): { scales: Float32Array[]; norms: number[] } {
  const blocks = squares[0]!.length;
  const norms = squares.map((row) => Math.sqrt(row.reduce((sum, square) => sum + square, 0)));
  const usual = lowerMedian(norms) / Math.sqrt(blocks);
  const scales = squares.map(() => new Float32Array(blocks));
  const clipped = squares.map(() => 0);
  for (let block = 0; block < blocks; block++) {
    const lengths = squares.map((row) => Math.sqrt(row[block]!));
    const most = blockClip * Math.max(usual, lowerMedian(lengths));
    for (const [i, length] of lengths.entries()) {
      const scale = clipScale(length, most);
      scales[i]![block] = scale;
      clipped[i]! += (scale * length) ** 2;
    }
  }
  const most = lowerMedian(clipped.map(Math.sqrt));
  for (const [i, square] of clipped.entries()) {
    const scale = clipScale(Math.sqrt(square), most);
    for (let block = 0; block < blocks; block++) scales[i]![block]! *= scale;
  }
  return { scales, norms };
}

function applyScales(stream: RowStream, { start, rows }: Chunk, scales: readonly Float32Array[]): void {
  for (const [i, row] of rows.entries()) {
    for (let from = 0; from < row.length; from += reductionBlock) {
      const scale = scales[i]![(start + from) / reductionBlock]!;
      if (scale !== 1) stream.kernels.scale(row.subarray(from, from + reductionBlock), scale);
    }
  }
}

/**
 * Σ p_i·(μ_i + clip(x_i − μ_i, τ)) with μ_i the weighted mean of the others and τ the median distance ‖x_i − μ_i‖,
 * as coefficients over the rows of `gram`.
 */
export function leaveOneOut(gram: Gram, weights: readonly number[]): number[] {
  const n = weights.length;
  if (n === 1) return [1];
  const others = weights.map((_, i) => weights.map((p, j) => (j === i ? 0 : p / (1 - weights[i]!))));
  const distances = others.map((point, i) => distanceTo(gram, i, point));
  const tau = lowerMedian(distances);
  const coefficients = new Array<number>(n).fill(0);
  for (const [i, weight] of weights.entries()) {
    const kept = clipScale(distances[i]!, tau);
    for (let j = 0; j < n; j++) {
      coefficients[j]! += j === i ? weight * kept : weight * (1 - kept) * others[i]![j]!;
    }
  }
  return coefficients;
}

export function clippedLeaveOneOut(
  stream: RowStream,
  write: WriteChunk,
): { coefficients: readonly number[]; norms: readonly number[] } {
  const { scales, norms } = blockScales(blockSquares(stream));
  const products = new Float64Array(stream.n * stream.n);
  stream.forEachChunk((chunk) => {
    applyScales(stream, chunk, scales);
    stream.kernels.gram(chunk.rows, products);
  });
  const coefficients = leaveOneOut(symmetric(products, stream.n), stream.weights);
  stream.forEachChunk((chunk) => {
    applyScales(stream, chunk, scales);
    stream.kernels.combineRows(chunk.out, chunk.rows, coefficients);
    write(chunk.start, chunk.out);
  });
  return { coefficients, norms };
}
