/**
 * The weighted geometric median by Weiszfeld's iteration from the coordinate median, in coefficients over one Gram
 * matrix. Sources: Weiszfeld 1937; Pillutla, Kakade and Harchaoui 2019 (arXiv 1912.13445) for the smoothing.
 */
import { writeAroundMedian } from './centered-clipping.ts';
import { distanceTo, type Gram, gramWithMedian, norm } from './geometry.ts';
import type { RowStream, WriteChunk } from './stream.ts';

const iterationsMax = 1000;
/** Stops when a step is this small beside the spread of the rows; distances below it count as this long. */
const tolerance = 1e-9;

/** `gram` holds n contributions and, last, their coordinate median. */
export function weiszfeld(gram: Gram, weights: readonly number[]): number[] {
  const n = weights.length;
  let point: number[] = Array.from({ length: n + 1 }, (_, i) => (i === n ? 1 : 0));
  const distances = () => weights.map((_, i) => distanceTo(gram, i, point));
  const least = tolerance * [...distances()].sort((a, b) => a - b)[Math.floor(n / 2)]!;
  if (least === 0) return point;
  for (let iteration = 0; iteration < iterationsMax; iteration++) {
    const pulls = distances().map((distance, i) => weights[i]! / Math.max(distance, least));
    const total = pulls.reduce((sum, pull) => sum + pull, 0);
    const next = point.map((_, i) => (i === n ? 0 : pulls[i]! / total));
    const step = norm(
      gram,
      next.map((a, i) => a - point[i]!),
    );
    point = next;
    if (step <= least) break;
  }
  return point;
}

export function geometricMedian(stream: RowStream, write: WriteChunk): { coefficients: readonly number[] } {
  const scales = new Array<number>(stream.n).fill(1);
  const coefficients = weiszfeld(gramWithMedian(stream, scales), stream.weights);
  writeAroundMedian(stream, write, scales, coefficients);
  return { coefficients };
}
