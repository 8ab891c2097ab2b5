/**
 * The contributions of the current round as this node knows them: announced, fetched, screened. It decides what is
 * taken in and why something is not; it knows nothing of consensus, of aggregation or of when a round should end.
 */

import type { Announcement } from '../ledger/announcement.ts';
import type { NodeId } from '../net/transport.ts';
import type { HashHex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { obtain } from './pool-obtain.ts';
import { offer, offerEarly } from './pool-offer.ts';
import { newPoolState, type PoolEntry, type PoolOptions, type PoolState } from './pool-state.ts';

export interface ContributionPool {
  begin(round: number, base: HashHex): void;
  /** Takes an announcement from anyone; fetching starts by itself. */
  offer(announcement: Announcement, from: NodeId): Outcome<void>;
  /** Whether the blob is here and valid, fetching it if need be. */
  obtain(announcement: Announcement): Promise<Outcome<Uint8Array>>;
  valid(): readonly PoolEntry[];
  /** Nodes whose contribution to this round is settled, valid or not. */
  settled(): ReadonlySet<NodeId>;
  /** Nodes that said they have nothing to contribute. */
  passed(): ReadonlySet<NodeId>;
  /** Ends the fetches under way. */
  close(): void;
}

export function createContributionPool(options: PoolOptions): ContributionPool {
  const p = newPoolState(options);
  return {
    begin: (round, base) => begin(p, round, base),
    offer: (one, from) => offer(p, one, from),
    obtain: (one) => obtain(p, one),
    valid: () => [...p.valid.values()],
    settled: () => p.settled,
    passed: () => p.passed,
    close: () => p.generation.abort(),
  };
}

function begin(p: PoolState, round: number, base: HashHex): void {
  p.generation.abort();
  p.generation = new AbortController();
  p.round = round;
  p.base = base;
  p.announced = new Map();
  p.valid = new Map();
  p.settled = new Set();
  p.passed = new Set();
  p.pending = new Map();
  p.retries = new Map();
  p.options.shelf.beginRound(round);
  offerEarly(p);
}
