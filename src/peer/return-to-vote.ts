/** A member that was found silent and is back asks for its vote again, as soon as it may. It does not know why it was away. */
import type { LedgerView } from '../ledger/draft.ts';
import { chainOf } from '../ledger/money.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import { isJailed } from '../ledger/silence.ts';
import type { Register } from '../ledger/transactions/register.ts';

/** What a node registers for after this block; undefined while it votes, never did, left by itself, or must wait. */
export function returnDue(view: LedgerView, nodeId: string, policy: LedgerPolicy): Register | undefined {
  const member = view.get('member', nodeId);
  if (!member || member.registered || member.convicted || member.jailedAt === 0) return undefined;
  return isJailed(member, chainOf(view).number + 1, policy) ? undefined : { stage: member.stage };
}
