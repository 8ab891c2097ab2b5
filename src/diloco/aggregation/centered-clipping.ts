/**
 * Centered clipping from the coordinate median: v ← v + Σ p_i·clip(x_i − v, τ), a few times, in coefficients over one
 * Gram matrix. Source: Karimireddy, He and Jaggi 2021 (arXiv 2012.10333); start and repetition as in BTARD
 * (arXiv 2106.11257).
 */
import { clipScale, distanceTo, type Gram, gramWithMedian, lowerMedian, medianOf } from './geometry.ts';
import type { RowStream, WriteChunk } from './stream.ts';

export interface CenteredClippingOptions {
  /** Radius τ; by default the median distance of the contributions from the coordinate median. */
  readonly tau?: number | undefined;
  readonly iterations: number;
}

export interface CenteredPoint {
  /** Over the contributions, and last over their coordinate median. */
  readonly coefficients: readonly number[];
  readonly tau: number;
}

/** `gram` holds n contributions and, last, their median. `weights` sum to 1. */
export function centerByClipping(
  gram: Gram,
  weights: readonly number[],
  options: CenteredClippingOptions,
): CenteredPoint {
  const n = weights.length;
  let point: number[] = Array.from({ length: n + 1 }, (_, i) => (i === n ? 1 : 0));
  const tau = options.tau ?? lowerMedian(weights.map((_, i) => distanceTo(gram, i, point)));
  for (let iteration = 0; iteration < options.iterations; iteration++) {
    const pulls = weights.map((weight, i) => weight * clipScale(distanceTo(gram, i, point), tau));
    const kept = 1 - pulls.reduce((sum, pull) => sum + pull, 0);
    point = point.map((a, i) => a * kept + (pulls[i] ?? 0));
  }
  return { coefficients: point, tau };
}

/** Two reads: median and distances, then the result. */
export function centeredClipping(
  stream: RowStream,
  write: WriteChunk,
  options: CenteredClippingOptions & { readonly scales?: readonly number[] },
): CenteredPoint {
  const scales = options.scales ?? new Array<number>(stream.n).fill(1);
  const centered = centerByClipping(gramWithMedian(stream, scales), stream.weights, options);
  writeAroundMedian(stream, write, scales, centered.coefficients);
  return centered;
}

/** Writes Σ c[i]·scales[i]·row i + c[n]·median of the scaled rows: the last read. */
export function writeAroundMedian(
  stream: RowStream,
  write: WriteChunk,
  scales: readonly number[],
  coefficients: readonly number[],
): void {
  const scaled = coefficients.map((coefficient, i) => coefficient * (scales[i] ?? 1));
  stream.forEachChunk(({ start, rows, median, out }) => {
    medianOf(stream, median, rows, scales);
    stream.kernels.combineRows(out, [...rows, median], scaled);
    write(start, out);
  });
}
