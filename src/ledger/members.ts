/**
 * Who votes, and with what weight: founders, whose weight fades as others bond stake, and those with stake. The set is
 * made at the end of an epoch from the members' rows and acts in the next one. Knows nothing of votes.
 */
import { must } from '../std/assert.ts';
import type { Draft, LedgerView } from './draft.ts';
import { accountOf, chainOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { BlockContext } from './rules.ts';
import type { ChainRow, MemberRow } from './tables.ts';

/** Weight of a founder with weight 1 at the beginning, and of the least stake that votes: room to fade in. */
export const weightUnit = 1_000;
/** Sum of all weights at most: consensus counts them in safe integers, three times over. */
const weightBitsMax = 40n;

/** [node id, weight], by node id: the same list on every node. Empty when nobody may vote. */
export function electVoters(view: LedgerView, policy: LedgerPolicy, bonded: bigint): [string, number][] {
  const candidates: { readonly nodeId: string; readonly weight: bigint }[] = [];
  for (const nodeId of view.keys('member')) {
    const weight = weightOf(view.get('member', nodeId)!, accountOf(view, nodeId).stake, policy, bonded);
    if (weight > 0n) candidates.push({ nodeId, weight });
  }
  // The sort is stable and candidates come by node id: of equal weights the smaller id is taken.
  candidates.sort((a, b) => (a.weight === b.weight ? 0 : a.weight > b.weight ? -1 : 1));
  const elected = candidates.slice(0, policy.membersMax);
  let total = elected.reduce((sum, { weight }) => sum + weight, 0n);
  let shift = 0n;
  for (; total >> weightBitsMax > 0n; total >>= 1n) shift += 1n;
  return elected
    .map(({ nodeId, weight }): [string, number] => [nodeId, Math.max(1, Number(weight >> shift))])
    .sort(([a], [b]) => (a < b ? -1 : 1));
}

/** Of a member, unless it wants no vote or must have none. */
export function weightOf(member: MemberRow, stake: bigint, policy: LedgerPolicy, bonded: bigint): bigint {
  if (!member.registered || member.convicted) return 0n;
  const whole = BigInt(policy.founderFadeStake);
  const left = bonded < whole ? whole - bonded : 0n;
  const founder = (BigInt(member.founderWeight) * BigInt(weightUnit) * left) / whole;
  const least = BigInt(Math.max(1, policy.memberStakeMin));
  const byStake = stake >= least ? (stake * BigInt(weightUnit)) / least : 0n;
  return founder + byStake;
}

/**
 * Ends an epoch after its last block. A network in which nobody may vote any more would stand still for ever, so then
 * those that voted go on, the convicted last.
 */
export function endEpoch(draft: Draft, { constants, timeMs }: BlockContext): void {
  const chain = chainOf(draft);
  const elected = electVoters(draft, constants.policy, chain.bonded);
  const before = new Set(chain.voters.map(([nodeId]) => nodeId));
  for (const [nodeId] of elected) {
    // Turns count from where it begins to have any.
    if (!before.has(nodeId))
      draft.put('member', nodeId, { ...draft.get('member', nodeId)!, proposedAt: chain.number });
  }
  draft.put('chain', '', {
    ...chain,
    epoch: chain.epoch + 1,
    epochStartMs: timeMs,
    voters: elected.length > 0 ? elected : remaining(draft, chain),
    provers: countProvers(draft, chain.epochStartMs),
  });
}

function remaining(view: LedgerView, chain: ChainRow): ChainRow['voters'] {
  const honest = chain.voters.filter(([nodeId]) => !view.get('member', nodeId)?.convicted);
  return honest.length > 0 ? honest : chain.voters;
}

function countProvers(view: LedgerView, sinceMs: number): number {
  return view
    .keys('prover')
    .filter((nodeId) => (view.get('prover', nodeId)!.recentMs.at(-1) ?? 0) >= Math.max(1, sinceMs)).length;
}

/** A voter as consensus names it. */
export interface Voter {
  /** Node id. */
  readonly nodeId: string;
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  readonly weight: number;
}

/** Who votes in the epoch that the state is in, in the order in which all nodes list them. */
export function votersOf(view: LedgerView): Voter[] {
  return chainOf(view).voters.map(([nodeId, weight]) => {
    const { publicKey } = must(view.get('member', nodeId), 'a voter without a member row');
    return { nodeId, publicKey, weight };
  });
}

export function isVoter(view: LedgerView, nodeId: string): boolean {
  return chainOf(view).voters.some(([voter]) => voter === nodeId);
}
