/**
 * Which contributions may stand on one list: those of a stage against one base. Of its own stage a node knows the base;
 * of another it believes the cohort, and before that has spoken, the base that most of its contributors name.
 */

import type { Announcement } from '../ledger/announcement.ts';
import type { Clearance } from '../ledger/clearance.ts';
import type { HashHex } from '../std/hash.ts';
import { type RoundList, shareOf } from './round-list.ts';
import { contributions, type RoundState } from './round-state.ts';

/** A member's word beside a stranger's: more than all strangers together, of whom the pool keeps fewer. */
const memberWeight = 1_000_000;

/** Contributions that are here and valid, in each stage against one base, and audited where the stage wants that first. */
export function listable(r: RoundState): Announcement[] {
  return withClearance(r, 'cleared');
}

/** The same, of another clearance: those that are still to stand their audit, say. */
export function withClearance(r: RoundState, wanted: Clearance): Announcement[] {
  const { shapes, clearance = () => 'cleared' } = r.options;
  const here = contributions(r);
  return shapes.flatMap((_, stage) => {
    const ofStage = here.filter((one) => one.stage === stage);
    const base = knownBase(r, stage) ?? usualBase(r, ofStage);
    const fitting = ofStage.filter((one) => one.base === base);
    return fitting.filter((one) => clearance(one, fitting.length) === wanted);
  });
}

/** Whether nothing this node knows of a stage's base speaks against the list. */
export function basesFit(r: RoundState, list: RoundList): boolean {
  return r.options.shapes.every((_, stage) => {
    const { base } = shareOf(list, stage);
    const known = knownBase(r, stage);
    return base === undefined || known === undefined || base === known;
  });
}

function knownBase(r: RoundState, stage: number): HashHex | undefined {
  return stage === r.options.stage ? r.base : r.options.agreedBase(r.round, stage);
}

/** The base that most members of the cohort name, then most others: keys cost nothing. The lowest hash on a tie. */
function usualBase({ options }: RoundState, ofStage: readonly Announcement[]): HashHex | undefined {
  const votes = new Map<HashHex, number>();
  for (const { base, nodeId, stage } of ofStage) {
    const weight = options.members.get(nodeId) === stage ? memberWeight : 1;
    votes.set(base, (votes.get(base) ?? 0) + weight);
  }
  const [first] = [...votes].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  return first?.[0];
}
