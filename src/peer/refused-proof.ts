/** Another's proof that this node does not take, as it came: for people to see who claims what cannot be. It judges nothing. */
import { nodeIdOf } from '../identity/keys.ts';
import { decodeTransaction } from '../ledger/transaction.ts';
import { proof } from '../ledger/transactions/proof.ts';
import type { NodeEvent } from './events.ts';

/** Refusals that come of who has heard of what first. */
const expectedCodes: ReadonlySet<string> = new Set(['known', 'stale-nonce', 'round-unknown']);

/** Undefined where it is no proof, or its code says nothing against its author. */
export function refusedProofEvent(
  bytes: Uint8Array,
  code: string,
): (NodeEvent & { type: 'refusedProof' }) | undefined {
  if (expectedCodes.has(code)) return undefined;
  const decoded = decodeTransaction(bytes);
  if (!decoded.ok || decoded.value.kind !== proof.kind || !decoded.value.publicKey) return undefined;
  return { type: 'refusedProof', node: nodeIdOf(decoded.value.publicKey), code };
}
