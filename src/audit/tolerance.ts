/**
 * How far a recomputed interval may lie from the claimed one: engines round differently, and so do thread counts of one
 * engine. Measured by `bench/audit-disagreement.ts`, table and method in docs/audit.md.
 */

import type { RowCodec } from '../pipeline/row-codec.ts';

/**
 * Relative L2 distances between claim and recomputation, each without its `outliersMax` elements furthest off. AdamW
 * divides a gradient by its own size: where sums cancel to as little as their rounding, two honest engines may step to
 * opposite sides, and in a small model one such element outweighs the rest (docs/audit.md).
 */
export interface Disagreement {
  /** Of the update: ‖w − w′‖ ÷ ‖w′ − w_start‖. */
  readonly update: number;
  /** Of the first moments: ‖m − m′‖ ÷ ‖m′‖. */
  readonly moments: number;
  /**
   * Of where AdamW would go next with no further gradient, m ÷ (√v + ε): a second moment that was made small where it is
   * small anyway shows here, and in no norm of v.
   */
  readonly direction: number;
  /** That of the update with all elements: for the record, no verdict depends on it. */
  readonly untrimmed: number;
}

/** Elements of a whole model that one interval may have off, each within `outlierStepsMax`. */
export const outliersMax = 8;
/** How far one of them may be off: so many times the sum of the interval's learning rates. */
export const outlierStepsMax = 4;

/** No honest engine may be further off than this in one interval, whatever was measured. */
export const toleranceMax = 1e-3;

/**
 * How far each array that a stage sent may lie from the recomputed one, as it travels. Two honest engines that differ in the
 * seventh digit round some elements to neighbouring values of the codec: one unit in every element is 6e-3 of the length
 * with bf16, and 2.4e-2 with int8, where a unit is a share of the block's largest.
 */
const rowTolerances: Readonly<Record<RowCodec, number>> = { f32: toleranceMax, bf16: 1e-2, int8: 5e-2 };

export function rowToleranceOf(codec: RowCodec): number {
  return rowTolerances[codec];
}

/**
 * Engines whose disagreement was measured, and the oracle of tests: work on another one has no tolerance that is known to
 * hold, and should not be claimed.
 */
export const measuredEngines: readonly string[] = ['native-cpu', 'wasm', 'interpreter'];

/** Ten times the largest honest disagreement that was measured, at most `toleranceMax`. */
export function toleranceFor(measuredMax: number): number {
  return Math.min(toleranceMax, 10 * measuredMax);
}

export function largest({ update, moments, direction }: Disagreement): number {
  return Math.max(update, moments, direction);
}
