/** Coordinate-wise median, unweighted. Source: Yin et al. 2018 (arXiv 1803.01498). */
import { medianOf } from './geometry.ts';
import type { RowStream, WriteChunk } from './stream.ts';

export function coordinateMedian(stream: RowStream, write: WriteChunk): void {
  const scales = new Array<number>(stream.n).fill(1);
  stream.forEachChunk(({ start, rows, out }) => {
    medianOf(stream, out, rows, scales);
    write(start, out);
  });
}
