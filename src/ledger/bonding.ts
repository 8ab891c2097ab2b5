/**
 * Stake: bonded, on its way back, free again, or lost. The chain's sum of the stake of registered members is kept here,
 * so stake changes nowhere else.
 */
import type { Draft } from './draft.ts';
import { accountOf, chainOf } from './money.ts';
import type { AccountRow, Amount } from './tables.ts';

/** Adds to a node's stake, or takes from it, for the caller to take the amount elsewhere, or put it there. */
export function changeStake(draft: Draft, nodeId: string, difference: Amount): void {
  const account = accountOf(draft, nodeId);
  draft.put('account', nodeId, { ...account, stake: account.stake + difference });
  if (draft.get('member', nodeId)?.registered) changeBonded(draft, difference);
}

export function changeBonded(draft: Draft, difference: Amount): void {
  if (difference === 0n) return;
  const chain = chainOf(draft);
  draft.put('chain', '', { ...chain, bonded: chain.bonded + difference });
}

/** The account with what is free by now moved to its balance; what a wallet shows as its own. */
export function released(account: AccountRow, timeMs: number): AccountRow {
  const waiting = account.unbonding.filter(([, freeMs]) => freeMs > timeMs);
  if (waiting.length === account.unbonding.length) return account;
  const all = account.unbonding.reduce((sum, [amount]) => sum + amount, 0n);
  const kept = waiting.reduce((sum, [amount]) => sum + amount, 0n);
  return { ...account, balance: account.balance + all - kept, unbonding: waiting };
}

/** Takes all stake that a node still answers with, bonded or on its way back, for the caller to `slash`. */
export function takeStake(draft: Draft, nodeId: string, timeMs: number): Amount {
  const before = accountOf(draft, nodeId);
  const { stake } = before;
  if (stake > 0n) changeStake(draft, nodeId, -stake);
  const account = released(accountOf(draft, nodeId), timeMs);
  const waiting = account.unbonding.reduce((sum, [amount]) => sum + amount, 0n);
  if (waiting > 0n || account.balance !== before.balance)
    draft.put('account', nodeId, { ...account, unbonding: [] });
  return stake + waiting;
}
