/**
 * `audit-reveal`: what an auditor committed to, once every auditor has committed or is too late to.
 * Wire: [duty b32, verdict 0 … 2, hash b32, salt b32].
 */
import { z } from 'zod';
import { equalBytes, fromHex } from '../../std/bytes.ts';
import { accept, reject } from '../../std/outcome.ts';
import { hashField, nodeIdField, parseBody } from '../body.ts';
import { pendingAuditors, phaseOf } from '../duties.ts';
import type { TransactionRule } from '../rules.ts';
import { type RevealBody, verdictCommitment, verdicts } from '../verdict.ts';

const schema = z
  .tuple([
    nodeIdField,
    z
      .number()
      .int()
      .min(0)
      .max(verdicts.length - 1),
    hashField,
    hashField,
  ])
  .transform(([duty, verdict, hash, salt]): RevealBody => ({ duty, verdict: verdicts[verdict]!, hash, salt }))
  .refine(({ verdict, hash }) => verdict !== 'withheld' || hash.every((byte) => byte === 0));

/** Codes: `unknown-duty`, `not-an-auditor`, `no-commitment`, `reveal-early`, `reveal-late`, `reveal-mismatch`. */
export const auditReveal: TransactionRule<RevealBody> = {
  kind: 'audit-reveal',
  origin: 'author',
  parse: (body) => parseBody('audit-reveal', schema, body),
  encode: ({ duty, verdict, hash, salt }) => [fromHex(duty), verdicts.indexOf(verdict), hash, salt],
  apply(draft, body, { nodeId }, context) {
    const { networkId, policy } = context.constants;
    const duty = draft.get('duty', body.duty);
    if (!duty) return reject('unknown-duty');
    if (!pendingAuditors(duty).includes(nodeId)) return reject('not-an-auditor');
    const committed = duty.commitments.find(([node]) => node === nodeId);
    if (!committed) return reject('no-commitment');
    const phase = phaseOf(duty, context, policy);
    if (phase === 'committing') return reject('reveal-early', 'others have not committed yet');
    if (phase !== 'revealing') return reject('reveal-late');
    if (!equalBytes(verdictCommitment(networkId, nodeId, body), committed[1]))
      return reject('reveal-mismatch');
    const reveals = [...duty.reveals, [nodeId, body.verdict, body.hash] as const];
    draft.put('duty', body.duty, { ...duty, reveals });
    return accept(undefined);
  },
};
