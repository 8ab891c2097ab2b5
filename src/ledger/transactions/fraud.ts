/**
 * `fraud`: evidence that a Driver signed a claim on a batch that is not the sampler's. Recomputing the batch needs the
 * dataset, so voters check the evidence before they vote; here the accused loses what it has.
 * Wire: [public key b33, evidence b ≤ 4096].
 */
import { z } from 'zod';
import { nodeIdOf, publicKeyBytes } from '../../identity/keys.ts';
import { accept, reject } from '../../std/outcome.ts';
import { bytesField, parseBody } from '../body.ts';
import type { TransactionRule } from '../rules.ts';
import { convict, isConvicted } from '../slash.ts';

export interface Fraud {
  /** Of the accused, compressed. */
  readonly publicKey: Uint8Array;
  /** The signed claim, opaque here. */
  readonly evidence: Uint8Array;
}

const evidenceBytesMax = 4096;
const evidenceField = z
  .instanceof(Uint8Array)
  .refine(({ length }) => length > 0 && length <= evidenceBytesMax);

const schema = z
  .tuple([bytesField(publicKeyBytes), evidenceField])
  .transform(([publicKey, evidence]): Fraud => ({ publicKey, evidence }));

/** Codes: `already-convicted`, `own-fraud`. */
export const fraud: TransactionRule<Fraud> = {
  kind: 'fraud',
  origin: 'author',
  parse: (body) => parseBody('fraud', schema, body),
  encode: ({ publicKey, evidence }) => [publicKey, evidence],
  apply(draft, { publicKey }, author, context) {
    const node = nodeIdOf(publicKey);
    if (node === author.nodeId) return reject('own-fraud');
    if (isConvicted(draft, node)) return reject('already-convicted');
    convict(draft, context, { node, reason: 'driver-fraud', reporters: [author.nodeId], publicKey });
    return accept(undefined);
  },
};
