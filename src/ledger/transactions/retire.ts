/**
 * `retire`: a prover takes its bond back, which stays slashable while it unbonds. Whoever proves again builds a new one;
 * vesting rewards go on to need further proofs. Wire: [].
 */
import { z } from 'zod';
import { accept, reject } from '../../std/outcome.ts';
import { parseBody } from '../body.ts';
import { accountOf } from '../money.ts';
import type { TransactionRule } from '../rules.ts';

const schema = z.tuple([]).transform(() => null);

/** Codes: `no-bond`, `open-duties`. */
export const retire: TransactionRule<null> = {
  kind: 'retire',
  origin: 'author',
  parse: (body) => parseBody('retire', schema, body),
  encode: () => [],
  apply(draft, _body, { nodeId }, { constants, timeMs }) {
    const prover = draft.get('prover', nodeId);
    if (!prover || prover.bond === 0n) return reject('no-bond');
    if (prover.openDuties > 0)
      return reject('open-duties', `${prover.openDuties} proofs await their verdict`);
    const account = accountOf(draft, nodeId);
    const free = timeMs + constants.policy.unbondingMs;
    draft.put('prover', nodeId, { ...prover, bond: 0n });
    draft.put('account', nodeId, { ...account, unbonding: [...account.unbonding, [prover.bond, free]] });
    return accept(undefined);
  },
};
