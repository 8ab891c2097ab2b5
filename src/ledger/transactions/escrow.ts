/**
 * `escrow`: sets an amount of the author's balance aside for one payee, who claims parts of it with the author's receipts.
 * Its id is the transaction's. Wire: [payee b32, amount, expiresMs].
 */
import { z } from 'zod';
import { fromHex, toHex } from '../../std/bytes.ts';
import { reject } from '../../std/outcome.ts';
import { amountField, counterField, nodeIdField, parseBody } from '../body.ts';
import { debit } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import type { Amount } from '../tables.ts';

export interface Escrow {
  /** Node id of who serves, or of the gateway that had it served. */
  readonly payee: string;
  readonly amount: Amount;
  /** From this block time on the payer may have the rest back. */
  readonly expiresMs: number;
}

const schema = z
  .tuple([nodeIdField, amountField, counterField])
  .transform(([payee, amount, expiresMs]): Escrow => ({ payee, amount, expiresMs }));

/** Codes: `wrong-expiry`, `overdrawn`. */
export const escrow: TransactionRule<Escrow> = {
  kind: 'escrow',
  origin: 'author',
  parse: (body) => parseBody('escrow', schema, body),
  encode: ({ payee, amount, expiresMs }) => [fromHex(payee), amount, expiresMs],
  apply(draft, { payee, amount, expiresMs }, { nodeId }, { timeMs, constants }, id) {
    if (expiresMs <= timeMs || expiresMs > timeMs + constants.policy.escrowMsMax)
      return reject('wrong-expiry', `${expiresMs - timeMs} ms from now`);
    const taken = debit(draft, nodeId, amount);
    if (taken.ok) draft.put('escrow', toHex(id), { payer: nodeId, payee, amount, claimed: 0n, expiresMs });
    return taken;
  },
};
