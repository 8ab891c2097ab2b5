/**
 * Aggregation: one rule applied to a round's contributions. All arithmetic is deterministic: the same contributions in
 * the same order give the same bits on every node. It knows nothing of screening or of rounds.
 */
import { unreachable } from '../../std/assert.ts';
import { centeredClipping } from './centered-clipping.ts';
import { clippedCentering } from './clipped-centering.ts';
import { clippedLeaveOneOut } from './clipped-leave-one-out.ts';
import { coordinateMedian } from './coordinate-median.ts';
import { geometricMedian } from './geometric-median.ts';
import { multiKrum } from './krum.ts';
import { mean } from './mean.ts';
import type { AggregationRule, RuleName } from './rules.ts';
import { type StreamOptions, type WriteChunk, withRowStream } from './stream.ts';
import { trimmedMean } from './trimmed-mean.ts';

export interface AggregationReport {
  readonly rule: RuleName;
  /** Share of each contribution in the result, before clipping (and last of the coordinate median), where a rule has one. */
  readonly coefficients?: readonly number[];
  /** Norms of the contributions as they came, where the rule measured them. */
  readonly norms?: readonly number[];
  /** Krum: what was kept, ascending, and every contribution's score. */
  readonly selected?: readonly number[];
  readonly scores?: readonly number[];
}

/**
 * Writes the aggregate of 1 to `contributionsMax` contributions in chunks, in order; reads each contribution at most
 * three times. Throws `too-few-for-krum` when a Krum rule is asked for more than n allows, before anything is written.
 */
export function aggregate(
  options: StreamOptions & { readonly rule: AggregationRule; readonly write: WriteChunk },
): AggregationReport {
  const { rule, write } = options;
  return withRowStream(options, (stream) => {
    switch (rule.name) {
      case 'mean':
        return { rule: rule.name, ...mean(stream, write) };
      case 'median':
        coordinateMedian(stream, write);
        return { rule: rule.name };
      case 'trimmed-mean':
        trimmedMean(stream, write, rule.beta);
        return { rule: rule.name };
      case 'krum':
        return { rule: rule.name, ...multiKrum(stream, write, { hostile: rule.hostile, keep: 1 }) };
      case 'multi-krum':
        return { rule: rule.name, ...multiKrum(stream, write, rule) };
      case 'centered-clipping':
        return {
          rule: rule.name,
          ...centeredClipping(stream, write, { tau: rule.tau, iterations: rule.iterations }),
        };
      case 'geometric-median':
        return { rule: rule.name, ...geometricMedian(stream, write) };
      case 'clipped-centering':
        return { rule: rule.name, ...clippedCentering(stream, write) };
      case 'clipped-leave-one-out':
        return { rule: rule.name, ...clippedLeaveOneOut(stream, write) };
      default:
        return unreachable(rule);
    }
  });
}
