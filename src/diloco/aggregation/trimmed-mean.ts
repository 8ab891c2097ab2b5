/** Coordinate-wise trimmed mean, unweighted. Source: Yin et al. 2018 (arXiv 1803.01498). */
import type { RowStream, WriteChunk } from './stream.ts';

/** Values dropped at each end: ⌊β·n⌋ but at least one from three contributions on, and never all. */
export function trimmedAtEachEnd(n: number, beta: number): number {
  if (n < 3) return 0;
  return Math.min(Math.max(1, Math.floor(beta * n)), Math.floor((n - 1) / 2));
}

export function trimmedMean(stream: RowStream, write: WriteChunk, beta: number): void {
  const { n, kernels } = stream;
  const k = trimmedAtEachEnd(n, beta);
  const scales = new Array<number>(n).fill(1);
  stream.forEachChunk(({ start, rows, out }) => {
    kernels.orderMean(out, rows, scales, k, n - k);
    write(start, out);
  });
}
