/**
 * What the revealed verdicts of an audit amount to: two agreeing auditors let a claim stand, more than two thirds of a
 * larger committee that is of one mind decide, and more than two thirds of all members decide over dissent. Pure.
 * Source: docs/proofs.md, Verdicts.
 */
import { toHex } from '../std/bytes.ts';
import type { DutyRow } from './tables.ts';

export type Ruling =
  | { readonly kind: 'stands'; readonly right: readonly string[]; readonly wrong: readonly string[] }
  | {
      readonly kind: 'guilty';
      readonly reason: 'false-proof' | 'withheld-evidence';
      readonly right: readonly string[];
      readonly wrong: readonly string[];
    }
  | { readonly kind: 'unclear' };

export const lastTier = 2;
const unclear: Ruling = { kind: 'unclear' };

interface Groups {
  /** Largest group that recomputed one hash and found the claim true. */
  readonly valid: readonly string[];
  /** Largest that recomputed one hash and found it false. */
  readonly guilty: readonly string[];
  readonly withheld: readonly string[];
  /** Results that differ in verdict or hash. */
  readonly results: number;
}

type Weigh = (nodes: readonly string[]) => bigint;

/**
 * `weights`: of the members, for the last tier; those who are no members any more count nothing there. The prover's own
 * weight counts there for its claim: with fewer than a third of the weight dishonest, the honest then always decide.
 */
export function rule(
  { prover, tier, auditors, reveals }: Pick<DutyRow, 'prover' | 'tier' | 'auditors' | 'reveals'>,
  weights: ReadonlyMap<string, number>,
): Ruling {
  if (auditors.length === 0) return unclear;
  const heads: Weigh = (nodes) => BigInt(nodes.length);
  const weigh: Weigh = (nodes) => nodes.reduce((sum, node) => sum + BigInt(weights.get(node) ?? 0), 0n);
  const groups = groupReveals(reveals, tier < lastTier ? heads : weigh);
  if (tier === 0) return groups.valid.length === auditors.length ? stands(reveals, groups.valid) : unclear;
  // Below the last tier a result that another auditor contradicts decides nothing: nobody is punished by a few.
  if (tier < lastTier) {
    return groups.results > 1 ? unclear : decide(reveals, groups, heads, { total: heads(auditors), own: 0n });
  }
  const own = weigh([prover]);
  return decide(reveals, groups, weigh, { total: weigh(auditors) + own, own });
}

function decide(
  reveals: DutyRow['reveals'],
  groups: Groups,
  weigh: Weigh,
  { total, own }: { readonly total: bigint; readonly own: bigint },
): Ruling {
  const isMost = (nodes: readonly string[]) => 3n * weigh(nodes) > 2n * total;
  if (groups.valid.length > 0 && 3n * (weigh(groups.valid) + own) > 2n * total) {
    // With the prover's own weight a claim may stand on a few. Only where a third agree is an honest one among them.
    const wrong = 3n * weigh(groups.valid) >= total ? contradicting(reveals, groups.valid) : [];
    return { kind: 'stands', right: groups.valid, wrong };
  }
  const right = [...groups.guilty, ...groups.withheld];
  if (!isMost(right)) return unclear;
  const isFalse = weigh(groups.guilty) >= weigh(groups.withheld);
  // A prover that serves its evidence to some only makes them see another truth: they are punished only where those who
  // recomputed it are the two thirds alone.
  const wrong = isMost(groups.guilty) ? contradicting(reveals, groups.guilty) : [];
  return { kind: 'guilty', reason: isFalse ? 'false-proof' : 'withheld-evidence', right, wrong };
}

function stands(reveals: DutyRow['reveals'], right: readonly string[]): Ruling {
  return { kind: 'stands', right, wrong: contradicting(reveals, right) };
}

/** Those who revealed another result. Whoever could not get the evidence contradicts nobody. */
function contradicting(reveals: DutyRow['reveals'], right: readonly string[]): string[] {
  return reveals
    .filter(([node, verdict]) => verdict !== 'withheld' && !right.includes(node))
    .map(([node]) => node);
}

function groupReveals(reveals: DutyRow['reveals'], weigh: Weigh): Groups {
  const groups = new Map<string, string[]>();
  const withheld: string[] = [];
  for (const [node, verdict, hash] of reveals) {
    if (verdict === 'withheld') withheld.push(node);
    else {
      const name = `${verdict} ${toHex(hash)}`;
      groups.set(name, [...(groups.get(name) ?? []), node]);
    }
  }
  const largest = (verdict: string) =>
    [...groups]
      .filter(([name]) => name.startsWith(verdict))
      .map(([, nodes]): readonly string[] => nodes)
      .reduce((best, nodes) => (weigh(nodes) > weigh(best) ? nodes : best), []);
  return { valid: largest('valid'), guilty: largest('false'), withheld, results: groups.size };
}
