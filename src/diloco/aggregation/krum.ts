/**
 * Krum and Multi-Krum, unweighted: the contribution (or the mean of the m contributions) closest to its neighbours.
 * Source: Blanchard et al. 2017 (NeurIPS, "Machine learning with adversaries").
 */
import { CodedError } from '../../std/outcome.ts';
import { type Gram, gramOfRows } from './geometry.ts';
import { type RowStream, type WriteChunk, writeCombination } from './stream.ts';

/** The most hostile rows that Krum is proved for: n ≥ 2f + 3. */
export function krumTolerance(n: number): number {
  return Math.max(0, Math.floor((n - 3) / 2));
}

/** Sum of squared distances to the n − f − 2 closest others. */
export function krumScores(gram: Gram, hostile: number): number[] {
  const n = gram.size;
  const product = (i: number, j: number) => gram.products[i * n + j]!;
  return Array.from({ length: n }, (_, i) => {
    const distances: number[] = [];
    for (let j = 0; j < n; j++) {
      if (j !== i) distances.push(Math.max(0, product(i, i) + product(j, j) - 2 * product(i, j)));
    }
    distances.sort((a, b) => a - b);
    return distances.slice(0, n - hostile - 2).reduce((sum, distance) => sum + distance, 0);
  });
}

/**
 * `hostile` f ≥ 1, by default the most that n allows; `keep` m, by default n − f − 2 (1 for Krum). Ties go to the
 * earlier contribution. Throws the coded error `too-few-for-krum` unless n ≥ 2f + 3.
 */
export function multiKrum(
  stream: RowStream,
  write: WriteChunk,
  options: { readonly hostile?: number | undefined; readonly keep?: number | undefined },
): { coefficients: readonly number[]; selected: readonly number[]; scores: readonly number[] } {
  const { n } = stream;
  const hostile = options.hostile ?? Math.max(1, krumTolerance(n));
  if (n < 2 * hostile + 3) {
    const message = `Krum needs ${2 * hostile + 3} contributions against ${hostile} hostile, not ${n}`;
    throw new CodedError('too-few-for-krum', message);
  }
  const scores = krumScores(gramOfRows(stream), hostile);
  const byScore = scores.map((_, i) => i).sort((a, b) => scores[a]! - scores[b]! || a - b);
  const selected = byScore.slice(0, options.keep ?? n - hostile - 2).sort((a, b) => a - b);
  const coefficients = scores.map((_, i) => (selected.includes(i) ? 1 / selected.length : 0));
  writeCombination(stream, coefficients, write);
  return { coefficients, selected, scores };
}
