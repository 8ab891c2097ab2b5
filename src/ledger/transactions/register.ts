/**
 * `register`: the author asks for a vote from the next epoch on, as a replica of the stage it names. Who is elected then
 * is for `members.ts` to say. Wire: [stage].
 */
import { z } from 'zod';
import { accept, reject } from '../../std/outcome.ts';
import { parseBody, stageField } from '../body.ts';
import { changeBonded } from '../bonding.ts';
import { accountOf } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import { isJailed } from '../silence.ts';

export interface Register {
  /** Counted from 0. */
  readonly stage: number;
}

const schema = z.tuple([stageField]).transform(([stage]): Register => ({ stage }));

/** Codes: `wrong-stage`, `already-registered`, `convicted`, `jailed`, `stake-too-small`. */
export const register: TransactionRule<Register> = {
  kind: 'register',
  origin: 'author',
  parse: (body) => parseBody('register', schema, body),
  encode: ({ stage }) => [stage],
  apply(draft, { stage }, { nodeId, publicKey }, { constants, number }) {
    if (stage >= constants.stageLayers.length) return reject('wrong-stage', `${stage}`);
    const known = draft.get('member', nodeId);
    if (known?.convicted) return reject('convicted');
    if (known?.registered) return reject('already-registered');
    if (known && isJailed(known, number, constants.policy))
      return reject('jailed', `in block ${known.jailedAt}`);
    const { stake } = accountOf(draft, nodeId);
    const founderWeight = known?.founderWeight ?? 0;
    const least = BigInt(constants.policy.memberStakeMin);
    if (founderWeight === 0 && stake < least) return reject('stake-too-small', `${stake} of ${least}`);
    const { beacon = null, beaconAt = 0 } = known ?? {};
    draft.put('member', nodeId, {
      ...{ publicKey, founderWeight, stage, registered: true, convicted: false },
      ...{ beacon, beaconAt, proposedAt: number, jailedAt: 0 },
    });
    changeBonded(draft, stake);
    return accept(undefined);
  },
};
