/** `Authorization: Bearer …`, checked so that the time taken tells nothing of how much of a token was right. */
import type { Context } from 'hono';
import { equalBytes, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';

/** Whether the request carries one of `tokens`; digests are compared. */
export function hasBearer(context: Context, tokens: readonly string[]): boolean {
  const given = /^Bearer (\S+)$/i.exec(context.req.header('Authorization') ?? '')?.[1];
  if (given === undefined) return false;
  const digest = sha256(utf8(given));
  // No early end: which of several tokens it was stays hidden, too.
  return tokens.filter((token) => equalBytes(digest, sha256(utf8(token)))).length > 0;
}
