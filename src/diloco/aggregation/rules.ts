/**
 * The rules by name: what a network chooses, what that means for n contributions, and what it withstands. Pure
 * functions, so all nodes agree; the arithmetic is elsewhere.
 */
import type { CodecName } from '../compression/codec.ts';
import { krumTolerance } from './krum.ts';
import { trimmedAtEachEnd } from './trimmed-mean.ts';

/** A rule with its parameters. */
export type AggregationRule =
  | { readonly name: 'mean' | 'median' | 'geometric-median' | 'clipped-centering' | 'clipped-leave-one-out' }
  /** Fraction dropped at each end. */
  | { readonly name: 'trimmed-mean'; readonly beta: number }
  | { readonly name: 'krum'; readonly hostile?: number }
  | { readonly name: 'multi-krum'; readonly hostile?: number; readonly keep?: number }
  | { readonly name: 'centered-clipping'; readonly tau?: number; readonly iterations: number };

export type RuleName = AggregationRule['name'];

/** What a person chooses: a rule, or `default`, which depends on the compression. */
export type AggregatorName = Exclude<RuleName, 'clipped-centering' | 'clipped-leave-one-out'> | 'default';

/** The default for contributions of this codec: medians mean nothing where few indices coincide. */
export function defaultRuleFor(codec: CodecName): AggregationRule {
  return { name: codec === 'sparse' ? 'clipped-leave-one-out' : 'clipped-centering' };
}

const trimmedFraction = 0.2;
const clippingIterations = 5;

/**
 * The rule that `aggregator` means for n contributions. Krum below five contributions would defend against nobody: the
 * default takes its place, and `insteadOf` says so. A pure function, so all nodes agree.
 */
export function ruleFor(
  aggregator: AggregatorName,
  codec: CodecName,
  n: number,
): { readonly rule: AggregationRule; readonly insteadOf?: AggregatorName } {
  switch (aggregator) {
    case 'default':
      return { rule: defaultRuleFor(codec) };
    case 'krum':
    case 'multi-krum':
      return krumTolerance(n) >= 1
        ? { rule: { name: aggregator } }
        : { rule: defaultRuleFor(codec), insteadOf: aggregator };
    case 'trimmed-mean':
      return { rule: { name: aggregator, beta: trimmedFraction } };
    case 'centered-clipping':
      return { rule: { name: aggregator, iterations: clippingIterations } };
    default:
      return { rule: { name: aggregator } };
  }
}

/**
 * How many of n contributions may be hostile without moving the result by more than honest contributions differ. For
 * `status`: zero means that a contribution must be trusted.
 */
export function toleratedHostile(aggregator: AggregatorName, codec: CodecName, n: number): number {
  const { rule } = ruleFor(aggregator, codec, n);
  switch (rule.name) {
    case 'mean':
      return 0;
    case 'trimmed-mean':
      return trimmedAtEachEnd(n, rule.beta);
    case 'krum':
    case 'multi-krum':
      return krumTolerance(n);
    default:
      return minority(n);
  }
}

/** The most that are fewer than half. */
function minority(n: number): number {
  return Math.max(0, Math.floor((n - 1) / 2));
}
