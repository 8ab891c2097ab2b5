/**
 * Evidence against Drivers that outlives the process: one signed claim for each, in the node's store. What is read back
 * is checked for damage, signature and place; whether it is fraud is for the caller to judge.
 */

import type { NodeId } from '../net/transport.ts';
import { type Claim, decodeClaim, encodeClaim } from '../pipeline/claim.ts';
import type { Store } from '../std/store.ts';
import type { EventSink } from './events.ts';

export interface EvidenceShelf {
  /** All that is whole. What is damaged is deleted and told; what cannot be read is left, and told. */
  read(): Promise<readonly Claim[]>;
  /** Durable soon; a store that fails is told of once, and the conviction then lasts until the restart. */
  keep(claim: Claim): void;
  forget(node: NodeId): void;
}

export interface EvidenceOptions {
  readonly network: { readonly networkId: Uint8Array };
  readonly store: Store;
  readonly events: EventSink;
}

const prefix = 'fraud-';

export function createEvidenceShelf({ network, store, events }: EvidenceOptions): EvidenceShelf {
  let hasWarned = false;
  const warn = (code: string, detail: string) => events({ type: 'warning', code, detail });
  const onFailure = (error: unknown) => {
    if (!hasWarned) warn('evidence-not-kept', `evidence of fraud is not kept: ${(error as Error).message}`);
    hasWarned = true;
  };
  const onUnread = (error: unknown) => {
    warn('evidence-unread', `evidence of fraud cannot be read: ${(error as Error).message}`);
  };
  const readOne = async (key: string): Promise<Claim | undefined> => {
    const bytes = await store.get(key);
    if (!bytes) return undefined;
    const claim = decodeClaim(network.networkId, bytes);
    if (claim.ok && key === prefix + claim.value.nodeId) return claim.value;
    const reason = claim.ok ? 'another Driver’s' : claim.code;
    warn('evidence-damaged', `evidence of fraud is damaged and forgotten: ${key} (${reason})`);
    await store.delete(key);
    return undefined;
  };
  return {
    read: async () => {
      const claims: Claim[] = [];
      const keys = await store.list(prefix).catch(onUnread);
      for (const key of keys ?? []) {
        const claim = await readOne(key).catch(onUnread);
        if (claim) claims.push(claim);
      }
      return claims;
    },
    keep: (claim) => void store.put(prefix + claim.nodeId, encodeClaim(claim)).catch(onFailure),
    forget: (node) => void store.delete(prefix + node).catch(onFailure),
  };
}
