/** `audit-commit`: a drawn auditor's commitment to a verdict that it keeps to itself. Wire: [duty b32, commitment b32]. */
import { z } from 'zod';
import { fromHex } from '../../std/bytes.ts';
import { accept, reject } from '../../std/outcome.ts';
import { hashField, nodeIdField, parseBody } from '../body.ts';
import { pendingAuditors, phaseOf } from '../duties.ts';
import type { TransactionRule } from '../rules.ts';

export interface AuditCommit {
  /** `proofKey` of the audited proof. */
  readonly duty: string;
  /** `verdictCommitment`. */
  readonly commitment: Uint8Array;
}

const schema = z
  .tuple([nodeIdField, hashField])
  .transform(([duty, commitment]): AuditCommit => ({ duty, commitment }));

/** Codes: `unknown-duty`, `not-an-auditor`, `already-committed`, `commitment-late`. */
export const auditCommit: TransactionRule<AuditCommit> = {
  kind: 'audit-commit',
  origin: 'author',
  parse: (body) => parseBody('audit-commit', schema, body),
  encode: ({ duty, commitment }) => [fromHex(duty), commitment],
  apply(draft, body, { nodeId }, context) {
    const duty = draft.get('duty', body.duty);
    if (!duty) return reject('unknown-duty');
    if (!pendingAuditors(duty).includes(nodeId)) return reject('not-an-auditor');
    if (duty.commitments.some(([node]) => node === nodeId)) return reject('already-committed');
    if (phaseOf(duty, context, context.constants.policy) !== 'committing') return reject('commitment-late');
    draft.put('duty', body.duty, { ...duty, commitments: [...duty.commitments, [nodeId, body.commitment]] });
    return accept(undefined);
  },
};
