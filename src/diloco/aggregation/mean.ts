/** The weighted mean: what DiLoCo uses among friends. One hostile row moves it anywhere. */
import type { RowStream, WriteChunk } from './stream.ts';
import { writeCombination } from './stream.ts';

export function mean(stream: RowStream, write: WriteChunk): { coefficients: readonly number[] } {
  writeCombination(stream, stream.weights, write);
  return { coefficients: stream.weights };
}
