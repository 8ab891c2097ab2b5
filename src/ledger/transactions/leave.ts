/** `leave`: the author gives up its vote from the next epoch on; its stake stays bonded. Wire: []. */
import { z } from 'zod';
import { accept, reject } from '../../std/outcome.ts';
import { parseBody } from '../body.ts';
import { changeBonded } from '../bonding.ts';
import { accountOf } from '../money.ts';
import type { TransactionRule } from '../rules.ts';

export type Leave = Readonly<Record<string, never>>;

const schema = z.tuple([]).transform((): Leave => ({}));

/** Code: `not-registered`. */
export const leave: TransactionRule<Leave> = {
  kind: 'leave',
  origin: 'author',
  parse: (body) => parseBody('leave', schema, body),
  encode: () => [],
  apply(draft, _body, { nodeId }) {
    const member = draft.get('member', nodeId);
    if (!member?.registered) return reject('not-registered');
    draft.put('member', nodeId, { ...member, registered: false });
    changeBonded(draft, -accountOf(draft, nodeId).stake);
    return accept(undefined);
  },
};
