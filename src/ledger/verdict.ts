/**
 * An auditor's commitment to its verdict, before it reveals it: H(duty, auditor, verdict, recomputed hash, salt). It names
 * the auditor, so a copied commitment can never be revealed. Knows no state.
 */
import { fromHex, utf8 } from '../std/bytes.ts';
import { taggedHash } from '../std/hash.ts';
import type { Verdict } from './tables.ts';

/** In the order of their numbers on the wire. */
export const verdicts = ['valid', 'false', 'withheld'] as const satisfies readonly Verdict[];

export interface RevealBody {
  /** `proofKey` of the audited proof. */
  readonly duty: string;
  readonly verdict: Verdict;
  /** State hash that the auditor recomputed for the interval's end; zeros with `withheld`. 32 bytes. */
  readonly hash: Uint8Array;
  /** 32 random bytes. */
  readonly salt: Uint8Array;
}

/** 32 bytes. `auditor`: node id. */
export function verdictCommitment(networkId: Uint8Array, auditor: string, reveal: RevealBody): Uint8Array {
  const { duty, verdict, hash, salt } = reveal;
  return taggedHash(
    'neuroshard/verdict/1',
    networkId,
    fromHex(duty),
    fromHex(auditor),
    utf8(verdict.padEnd(8)),
    hash,
    salt,
  );
}
