/**
 * Fields that bodies of transactions are made of, and how a body is read. On the wire a body is an array; a node id is
 * its 32 bytes, an amount an integer. Knows no kind.
 */
import { z } from 'zod';
import { toHex } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { supplyMax } from './money.ts';

export function bytesField(length: number) {
  return z.instanceof(Uint8Array).refine((value) => value.length === length);
}

export const hashField = bytesField(32);

/** Lower-case hex once read. */
export const nodeIdField = hashField.transform(toHex);

/** Positive: moving nothing is not a transaction. */
export const amountField = z
  .union([z.number().int().min(1).max(Number.MAX_SAFE_INTEGER), z.bigint().min(1n).max(supplyMax)])
  .transform((value) => BigInt(value));

export const counterField = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);

export const stageField = z.number().int().min(0).max(65_535);

/** `malformed-<kind>`. */
export function parseBody<Body>(kind: string, schema: z.ZodType<Body>, body: unknown): Outcome<Body> {
  const parsed = schema.safeParse(body);
  if (parsed.success) return accept(parsed.data);
  const issue = parsed.error.issues[0];
  return reject(`malformed-${kind}`, issue ? `field ${issue.path.join('.')}: ${issue.message}` : '');
}
