/**
 * The default rule for dense contributions: every norm is clipped to the median norm, then centered clipping from the
 * coordinate median. Two reads, and one more where the norms are not known. Weights act in the clipping, not in the
 * medians.
 */
import { type CenteredPoint, centeredClipping } from './centered-clipping.ts';
import { clipScale, lowerMedian, squaredNorms } from './geometry.ts';
import type { RowStream, WriteChunk } from './stream.ts';

/** Enough for the centre to settle: each step keeps at most what clipping withholds. */
const iterations = 5;

export function clippedCentering(
  stream: RowStream,
  write: WriteChunk,
): CenteredPoint & { norms: readonly number[]; scales: readonly number[] } {
  const norms = stream.norms ?? squaredNorms(stream).map(Math.sqrt);
  const most = lowerMedian(norms);
  // f32, as the kernel applies them: the matrix and the medians then see the same rows.
  const scales = norms.map((length) => Math.fround(clipScale(length, most)));
  return { ...centeredClipping(stream, write, { iterations, scales }), norms, scales };
}
