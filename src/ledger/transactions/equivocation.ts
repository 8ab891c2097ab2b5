/**
 * `equivocation`: shows two statements of consensus that no honest member makes. The accused loses its vote for ever, the
 * weight it had as a founder, its stake and what it has not been paid. Whether the evidence is good the voters have judged, who know consensus; to
 * the ledger it is bytes. Wire: [accused b32, evidence].
 */
import { z } from 'zod';
import { fromHex } from '../../std/bytes.ts';
import { accept, reject } from '../../std/outcome.ts';
import { nodeIdField, parseBody } from '../body.ts';
import { changeBonded } from '../bonding.ts';
import { accountOf } from '../money.ts';
import type { TransactionRule } from '../rules.ts';
import { convict } from '../slash.ts';

export interface Equivocation {
  /** Node id. */
  readonly accused: string;
  readonly evidence: Uint8Array;
}

const evidenceBytesMax = 15 * 1024;

const schema = z
  .tuple([nodeIdField, z.instanceof(Uint8Array).refine((bytes) => bytes.length <= evidenceBytesMax)])
  .transform(([accused, evidence]): Equivocation => ({ accused, evidence }));

/** Codes: `unknown-member`, `already-convicted`. */
export const equivocation: TransactionRule<Equivocation> = {
  kind: 'equivocation',
  origin: 'author',
  parse: (body) => parseBody('equivocation', schema, body),
  encode: ({ accused, evidence }) => [fromHex(accused), evidence],
  apply(draft, { accused }, author, context) {
    const member = draft.get('member', accused);
    if (!member) return reject('unknown-member', accused);
    if (member.convicted) return reject('already-convicted');
    if (member.registered) changeBonded(draft, -accountOf(draft, accused).stake);
    draft.put('member', accused, { ...member, founderWeight: 0, registered: false, convicted: true });
    convict(draft, context, { node: accused, reason: 'equivocation', reporters: [author.nodeId] });
    return accept(undefined);
  },
};
