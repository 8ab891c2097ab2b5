/** `Authorization: Bearer …`, checked so that the time taken tells nothing of how much of a token was right. */
import type { Context } from 'hono';
import { equalBytes, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';

/** Whether the request carries one of `tokens`; digests are compared. */
export function hasBearer(context: Context, tokens: readonly string[]): boolean {
  return (
    bearerOf(
      context,
      tokens.map((token) => [digestOfToken(token), true] as const),
    ) === true
  );
}

export function digestOfToken(token: string): Uint8Array {
  return sha256(utf8(token));
}

/** What belongs to the token that the request carries, by the digests of all tokens. */
export function bearerOf<T>(
  context: Context,
  byDigest: readonly (readonly [digest: Uint8Array, value: T])[],
): T | undefined {
  const given = /^Bearer (\S+)$/i.exec(context.req.header('Authorization') ?? '')?.[1];
  if (given === undefined) return undefined;
  const digest = digestOfToken(given);
  // No early end: which of several tokens it was stays hidden, too.
  return byDigest.filter(([known]) => equalBytes(digest, known))[0]?.[1];
}
