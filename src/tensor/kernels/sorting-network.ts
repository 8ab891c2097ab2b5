/**
 * Batcher's odd-even merge sort as a list of comparators, for any number of rows. It knows nothing of what is
 * sorted. Source: Batcher 1968; Knuth, TAOCP volume 3, algorithm 5.2.2M.
 */

/** Pairs (lower, higher): after all of them in order, row i holds the value of rank i. */
export function sortingNetwork(rows: number): [number, number][] {
  const comparators: [number, number][] = [];
  let half = 1;
  while (2 * half < rows) half *= 2;
  for (let p = half; p > 0; p >>= 1) {
    let q = half;
    let r = 0;
    for (let d = p; d > 0; d = q - p, q >>= 1, r = p) {
      for (let i = 0; i < rows - d; i++) if ((i & p) === r) comparators.push([i, i + d]);
      if (q === p) break;
    }
  }
  return comparators;
}
