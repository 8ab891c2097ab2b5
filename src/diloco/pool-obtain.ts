/**
 * How the pool gets the blob of an announcement: from the shelf, from its announcer, from who passed it on, from
 * others; screened before it counts. Whether an announcement is taken in at all is decided elsewhere.
 */

import type { Announcement } from '../ledger/announcement.ts';
import type { NodeId } from '../net/transport.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { fetchBlob } from './blob-exchange.ts';
import { check, keyOf, type PoolState, settleRefused, settleValid } from './pool-state.ts';

/** Peers asked for one blob besides its announcer, members first: they take in the blobs of every stage. */
const fallbackPeersMax = 16;

/** Failures of delivery, or of this node, not of the contribution itself. */
const transient = new Set(['blob-unavailable', 'aborted', 'hash-mismatch', 'failed']);

/** The blob, once it is here and valid. `hint`: who may have it, besides its announcer. Never rejects. */
export function obtain(p: PoolState, one: Announcement, hint?: NodeId): Promise<Outcome<Uint8Array>> {
  const checked = check(p, one);
  if (!checked.ok) return Promise.resolve(checked);
  const key = keyOf(one);
  const known = p.pending.get(key);
  if (known) return known;
  const { signal } = p.generation;
  // The store or the compute thread may fail, at the latest when they are closed: no blob then, and no crash.
  const attempt = fetchAndScreen(p, one, hint, signal).catch((error: unknown) =>
    reject('failed', String(error)),
  );
  p.pending.set(key, attempt);
  void attempt.then((outcome) => {
    // Another round, or the same one begun again on another base.
    if (signal.aborted) return;
    if (outcome.ok) return settleValid(p, one);
    // What nobody could deliver may still come from elsewhere: a later call tries again.
    if (transient.has(outcome.code)) p.pending.delete(key);
    settleRefused(p, one.nodeId, outcome.code);
  });
  return attempt;
}

async function fetchAndScreen(
  p: PoolState,
  one: Announcement,
  hint: NodeId | undefined,
  signal: AbortSignal,
): Promise<Outcome<Uint8Array>> {
  const { transport, shelf } = p.options;
  const held = await shelf.find(one.blobHash);
  if (held) return screenAndKeep(p, one, held);
  let last: Outcome<Uint8Array> = reject('blob-unavailable');
  for (const peer of candidates(p, one.nodeId, hint)) {
    const { blobHash: hash, blobBytes: bytes } = one;
    const fetched = await fetchBlob({ transport, hash, bytes, from: peer, signal });
    if (signal.aborted) return reject('aborted');
    if (!fetched.ok) continue;
    last = await screenAndKeep(p, one, fetched.value);
    if (last.ok || last.code !== 'hash-mismatch') return last;
    transport.penalize(peer, 'hash-mismatch');
  }
  return last.ok || last.code === 'hash-mismatch' ? last : reject('blob-unavailable');
}

function candidates(p: PoolState, announcer: NodeId, hint: NodeId | undefined): NodeId[] {
  const { transport, members } = p.options;
  const peers = transport.peers().filter((peer) => peer !== announcer && peer !== hint);
  const others = [
    ...peers.filter((peer) => members.has(peer)),
    ...peers.filter((peer) => !members.has(peer)),
  ];
  const order = new Set([announcer, hint, ...others.slice(0, fallbackPeersMax)]);
  return [...order].filter((peer): peer is NodeId => peer !== undefined && peer !== transport.self);
}

async function screenAndKeep(
  p: PoolState,
  one: Announcement,
  blob: Uint8Array,
): Promise<Outcome<Uint8Array>> {
  const { replica, shapes } = p.options;
  const screened = await replica.screen(blob, one.blobHash, shapes[one.stage]?.length);
  if (!screened.ok) return screened;
  p.options.shelf.put(one.round, one.blobHash, blob);
  return accept(blob);
}
