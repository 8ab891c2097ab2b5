/** `transfer`: moves an amount from the author's balance to another account. Wire: [to b32, amount]. */
import { z } from 'zod';
import { fromHex } from '../../std/bytes.ts';
import { reject } from '../../std/outcome.ts';
import { amountField, nodeIdField, parseBody } from '../body.ts';
import { credit, debit } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import type { Amount } from '../tables.ts';

export interface Transfer {
  /** Node id. */
  readonly to: string;
  readonly amount: Amount;
}

const schema = z.tuple([nodeIdField, amountField]).transform(([to, amount]): Transfer => ({ to, amount }));

/** Codes: `overdrawn`, `own-account`. */
export const transfer: TransactionRule<Transfer> = {
  kind: 'transfer',
  origin: 'author',
  parse: (body) => parseBody('transfer', schema, body),
  encode: ({ to, amount }) => [fromHex(to), amount],
  apply(draft, { to, amount }, author) {
    if (to === author.nodeId) return reject('own-account');
    const taken = debit(draft, author.nodeId, amount);
    if (taken.ok) credit(draft, to, amount);
    return taken;
  },
};
