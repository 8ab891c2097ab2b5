/**
 * Rows of provers, and how rewards wait in them: first as a bond, then vesting over further proofs. Whether a claim stands
 * is not known here: what is under audit lies in its duty.
 */
import { must } from '../std/assert.ts';
import type { Draft, LedgerView } from './draft.ts';
import { credit } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { Author } from './rules.ts';
import type { Amount, ProverRow } from './tables.ts';

export function newProver(publicKey: Uint8Array): ProverRow {
  return {
    publicKey,
    proofs: 0,
    nonce: 0,
    after: null,
    round: 0,
    step: 0,
    recentMs: [],
    audits: 0,
    vesting: [],
    bond: 0n,
    openDuties: 0,
    challenged: 0,
    cleared: null,
    answered: 0,
    convicted: false,
  };
}

export function proverOf(view: LedgerView, author: Author): ProverRow {
  return view.get('prover', author.nodeId) ?? newProver(author.publicKey);
}

/** Thousandths of the proofs that are audited when so many nodes prove. */
export function auditRate({ auditRates }: LedgerPolicy, provers: number): number {
  return (auditRates.find(({ below }) => provers < below) ?? must(auditRates.at(-1), 'no audit rate')).rate;
}

/** ⌈vestingFactor / rate⌉: further proofs that a reward waits for. Without audits, as with one in a thousand. */
export function proofsToVest(policy: LedgerPolicy, provers: number): number {
  return Math.ceil((policy.vestingFactor * 1000) / Math.max(1, auditRate(policy, provers)));
}

/** Gives a reward that stands its place: the bond for a first proof, else among those that vest, oldest first. */
export function vest(prover: ProverRow, proof: number, isFirst: boolean, amount: Amount): ProverRow {
  if (amount === 0n) return prover;
  if (isFirst) return { ...prover, bond: prover.bond + amount };
  const later = prover.vesting.findIndex(([number]) => number > proof);
  const at = later < 0 ? prover.vesting.length : later;
  return { ...prover, vesting: prover.vesting.toSpliced(at, 0, [proof, amount, prover.audits]) };
}

/**
 * Whether a proof is audited for certain and its reward locked: one of the first, or one that earns more than twice what
 * the bond holds of each first one. So nobody can give a bond of small proofs for a large one.
 */
export function isBonded(policy: LedgerPolicy, prover: ProverRow, proof: number, reward: Amount): boolean {
  return proof <= policy.bondProofs || reward * BigInt(policy.bondProofs) > 2n * prover.bond;
}

/** For how much a reward waits. */
export interface Ripeness {
  /** Further proofs. */
  readonly proofs: number;
  /** Of those, audits that ended well. */
  readonly audits: number;
}

/** Where the founder wants no audits nobody waits for any. */
export function ripenessOf(policy: LedgerPolicy, provers: number): Ripeness {
  const { auditsPerBlockMax, auditsOpenMax, vestingFactor } = policy;
  const isAudited = auditsPerBlockMax > 0 && auditsOpenMax > 0 && auditRate(policy, provers) > 0;
  return { proofs: proofsToVest(policy, provers), audits: isAudited ? vestingFactor : 0 };
}

/**
 * Pays out, oldest first, what has waited for enough further proofs that themselves earned at least half as much each:
 * small proofs do not ripen large ones. As many audits as that number of proofs has on the mean must have ended well by
 * then, too: where auditors have little time, fewer are audited than the policy says, and what is not done is never a
 * pass. Rewards under audit are not here yet: they lie in their duties.
 */
export function releaseVested(draft: Draft, nodeId: string, ripe: Ripeness): void {
  const prover = must(draft.get('prover', nodeId), 'a prover');
  let later = prover.vesting.reduce((sum, [, amount]) => sum + amount, 0n);
  let released = 0n;
  let count = 0;
  for (const [number, amount, audits] of prover.vesting) {
    later -= amount;
    if (number + ripe.proofs > prover.proofs || 2n * later < amount * BigInt(ripe.proofs)) break;
    if (prover.audits < audits + ripe.audits) break;
    released += amount;
    count += 1;
  }
  if (count === 0) return;
  draft.put('prover', nodeId, { ...prover, vesting: prover.vesting.slice(count) });
  credit(draft, nodeId, released);
}
