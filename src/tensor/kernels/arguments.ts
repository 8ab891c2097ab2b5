/** What both implementations of the kernels require of their arguments, asserted before anything is written. */
import { assert } from '../../std/assert.ts';
import { rowsMax } from './kernels.ts';
import { type BlockLayout, encodedBytes } from './layout.ts';

/** The one length of all views. */
export function sameLength(first: Float32Array, ...rest: readonly Float32Array[]): number {
  for (const other of rest)
    assert(other.length === first.length, `lengths ${first.length}, ${other.length} differ`);
  return first.length;
}

/** The one length of 1 to `rowsMax` rows. */
export function rowLength(rows: readonly Float32Array[]): number {
  assert(rows.length >= 1 && rows.length <= rowsMax, `${rows.length} rows, not 1 to ${rowsMax}`);
  return sameLength(rows[0]!, ...rows.slice(1));
}

/** An id outside the table would write elsewhere. */
export function assertScatter(table: Float32Array, ids: Int32Array, rows: Float32Array, width: number): void {
  assert(width >= 1 && rows.length === ids.length * width, 'scatterAddRows: rows must be ids × width');
  const count = Math.floor(table.length / width);
  for (const id of ids) assert(id >= 0 && id < count, `scatterAddRows: row ${id} of ${count}`);
}

export function assertRanks(scales: readonly number[], n: number, from: number, to: number): void {
  assert(scales.length === n, 'orderMean: one scale for each row');
  assert(from >= 0 && from < to && to <= n, `orderMean: ranks [${from}, ${to}) of ${n}`);
}

export function assertEncoded(layout: BlockLayout, bytes: Uint8Array, x: Float32Array): void {
  const wanted = encodedBytes(layout, x.length);
  assert(bytes.length === wanted, `${layout}: ${bytes.length} bytes for ${x.length} elements, not ${wanted}`);
}
