/**
 * `unstake`: begins to take stake back. It is free after the unbonding time, at the author's next transaction, and until
 * then answers for what the author did. Wire: [amount].
 */
import { z } from 'zod';
import { accept, reject } from '../../std/outcome.ts';
import { amountField, parseBody } from '../body.ts';
import { changeStake } from '../bonding.ts';
import { accountOf } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import type { Amount } from '../tables.ts';

export interface Unstake {
  readonly amount: Amount;
}

/** Amounts on their way back at once: an account's row stays small. */
const unbondingMax = 32;

const schema = z.tuple([amountField]).transform(([amount]): Unstake => ({ amount }));

/** Codes: `not-staked`, `too-many-unbonding`. */
export const unstake: TransactionRule<Unstake> = {
  kind: 'unstake',
  origin: 'author',
  parse: (body) => parseBody('unstake', schema, body),
  encode: ({ amount }) => [amount],
  apply(draft, { amount }, { nodeId }, { timeMs, constants }) {
    const before = accountOf(draft, nodeId);
    if (before.stake < amount) return reject('not-staked', `${before.stake} of ${amount} micro-NEURO`);
    if (before.unbonding.length >= unbondingMax) return reject('too-many-unbonding');
    changeStake(draft, nodeId, -amount);
    const account = accountOf(draft, nodeId);
    const freeMs = timeMs + constants.policy.unbondingMs;
    draft.put('account', nodeId, { ...account, unbonding: [...account.unbonding, [amount, freeMs]] });
    return accept(undefined);
  },
};
