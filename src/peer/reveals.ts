/**
 * What this node has committed to as an auditor and not revealed yet, kept over a restart: a commitment that is never
 * revealed costs a fee.
 */
import { auditReveal } from '../ledger/transactions/audit-reveal.ts';
import type { RevealBody } from '../ledger/verdict.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { Store } from '../std/store.ts';

const prefix = 'audit/reveal/';
const revealBytesMax = 256;

/** An audit is named by its duty and interval: one that nobody could settle is drawn anew. */
export interface Reveals {
  /** Durable when it resolves: to be called before the commitment is sent. */
  keep(audit: string, reveal: RevealBody): Promise<void>;
  get(audit: string): RevealBody | undefined;
  /** Forgets those of duties that are settled. */
  keepOnly(duties: ReadonlySet<string>): void;
}

export function auditName(duty: string, interval: number): string {
  return `${duty}/${interval}`;
}

/** A damaged entry is left out: it is worth a fee, not the node. */
export async function openReveals(store: Store): Promise<Reveals> {
  const kept = new Map<string, RevealBody>();
  for (const key of await store.list(prefix)) {
    const bytes = await store.get(key);
    const decoded = bytes && decodeCanonical(bytes, revealBytesMax);
    const body = decoded?.ok ? auditReveal.parse(decoded.value) : undefined;
    if (body?.ok) kept.set(key.slice(prefix.length), body.value);
  }
  return {
    keep: async (audit, reveal) => {
      kept.set(audit, reveal);
      await store.put(`${prefix}${audit}`, encodeCanonical(auditReveal.encode(reveal)));
    },
    get: (audit) => kept.get(audit),
    keepOnly: (duties) => {
      for (const [audit, { duty }] of kept) {
        if (duties.has(duty)) continue;
        kept.delete(audit);
        store.delete(`${prefix}${audit}`).catch(() => {});
      }
    },
  };
}
