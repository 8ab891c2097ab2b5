/** `refund`: the rest of an escrow goes back to its payer, once it has expired or when the payee says so. Wire: [escrow b32]. */
import { z } from 'zod';
import { fromHex, toHex } from '../../std/bytes.ts';
import { accept, reject } from '../../std/outcome.ts';
import { hashField, parseBody } from '../body.ts';
import { credit } from '../money.ts';
import type { TransactionRule } from '../rules.ts';

export interface Refund {
  /** Id of the escrow, hex. */
  readonly escrow: string;
}

const schema = z.tuple([hashField]).transform(([escrow]): Refund => ({ escrow: toHex(escrow) }));

/** Codes: `unknown-escrow`, `not-yours`, `not-expired`. */
export const refund: TransactionRule<Refund> = {
  kind: 'refund',
  origin: 'author',
  parse: (body) => parseBody('refund', schema, body),
  encode: ({ escrow }) => [fromHex(escrow)],
  apply(draft, { escrow }, { nodeId }, { timeMs }) {
    const row = draft.get('escrow', escrow);
    if (!row) return reject('unknown-escrow', escrow);
    const { payer, payee, amount, claimed, expiresMs } = row;
    if (nodeId !== payer && nodeId !== payee) return reject('not-yours');
    if (nodeId !== payee && timeMs < expiresMs) return reject('not-expired', `${expiresMs - timeMs} ms left`);
    draft.delete('escrow', escrow);
    credit(draft, payer, amount - claimed);
    return accept(undefined);
  },
};
