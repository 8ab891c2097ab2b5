/**
 * Members that propose nothing: who let turn after turn pass is dropped from the voters until it registers again, so that
 * the dead are not counted among those whom every decision waits for. What shows it are the blocks themselves. It says
 * nothing of why: the price is small, for a machine may just have been off. Source: docs/ledger.md, Silence.
 */
import { must } from '../std/assert.ts';
import { changeBonded, changeStake } from './bonding.ts';
import type { Draft, LedgerView } from './draft.ts';
import { weightOf } from './members.ts';
import { accountOf, burn, chainOf, shareOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { BlockContext } from './rules.ts';
import { recordSlash } from './slash.ts';
import type { MemberRow } from './tables.ts';

/** Whether a member that was dropped may not register yet: for an epoch. */
export function isJailed({ jailedAt }: MemberRow, number: number, { epochBlocks }: LedgerPolicy): boolean {
  return jailedAt > 0 && number < jailedAt + epochBlocks;
}

/** Voters that had so many turns since their last block, longest silent first. */
export function silentVoters(view: LedgerView, policy: LedgerPolicy): readonly string[] {
  const { number, voters } = chainOf(view);
  const blocks = policy.silentTurns * voters.length;
  return voters
    .map(([nodeId]) => ({ nodeId, member: must(view.get('member', nodeId), 'a voter') }))
    .filter(({ member }) => member.registered && number - member.proposedAt >= blocks)
    .sort((a, b) => a.member.proposedAt - b.member.proposedAt || (a.nodeId < b.nodeId ? -1 : 1))
    .map(({ nodeId }) => nodeId);
}

/**
 * The step at the end of an epoch. Together with those dropped before they are always less than a third of the weight: so
 * many may fail, and were more dropped, the hostile among the others could become a third of those who are left.
 */
export function dropSilent(draft: Draft, context: BlockContext): void {
  const { number, constants } = context;
  const { policy } = constants;
  if (policy.silentTurns === 0 || number % policy.epochBlocks !== 0) return;
  const silent = silentVoters(draft, policy);
  if (silent.length === 0) return;
  const { bonded } = chainOf(draft);
  const weigh = (nodeId: string) => {
    const member = must(draft.get('member', nodeId), 'a member');
    const { stake } = accountOf(draft, nodeId);
    return weightOf({ ...member, registered: true }, stake, policy, bonded);
  };
  const members = draft.keys('member');
  const isIn = (nodeId: string) => draft.get('member', nodeId)!.registered;
  const isOut = (nodeId: string) => !isIn(nodeId) && draft.get('member', nodeId)!.jailedAt > 0;
  const sum = (nodes: readonly string[]) => nodes.reduce((weight, nodeId) => weight + weigh(nodeId), 0n);
  let out = sum(members.filter(isOut));
  const total = out + sum(members.filter(isIn));
  for (const nodeId of silent) {
    const weight = weigh(nodeId);
    if (3n * (out + weight) >= total) continue;
    out += weight;
    drop(draft, context, nodeId);
  }
}

/** The stake stays, but for a small part by policy: it is burned. */
function drop(draft: Draft, context: BlockContext, nodeId: string): void {
  const fine = shareOf(accountOf(draft, nodeId).stake, context.constants.policy.silenceFine);
  if (fine > 0n) {
    changeStake(draft, nodeId, -fine);
    burn(draft, fine);
  }
  changeBonded(draft, -accountOf(draft, nodeId).stake);
  const member = must(draft.get('member', nodeId), 'a member');
  draft.put('member', nodeId, { ...member, registered: false, jailedAt: context.number });
  recordSlash(draft, context, { node: nodeId, reason: 'silence', amount: fine, reporter: null });
}
