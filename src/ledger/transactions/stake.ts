/** `stake`: bonds an amount of the author's balance. Wire: [amount]. */
import { z } from 'zod';
import { amountField, parseBody } from '../body.ts';
import { changeStake } from '../bonding.ts';
import { debit } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import type { Amount } from '../tables.ts';

export interface Stake {
  readonly amount: Amount;
}

const schema = z.tuple([amountField]).transform(([amount]): Stake => ({ amount }));

/** Code: `overdrawn`. */
export const stake: TransactionRule<Stake> = {
  kind: 'stake',
  origin: 'author',
  parse: (body) => parseBody('stake', schema, body),
  encode: ({ amount }) => [amount],
  apply(draft, { amount }, author) {
    const taken = debit(draft, author.nodeId, amount);
    if (taken.ok) changeStake(draft, author.nodeId, amount);
    return taken;
  },
};
