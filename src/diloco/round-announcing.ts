/**
 * Announcements of contributions, this node's own and the others': said, said again until the round is decided, and
 * heard. Whether one is taken in is the pool's answer, not known here.
 */

import {
  announce,
  contributionTopic,
  decodeAnnouncement,
  encodeAnnouncement,
} from '../ledger/announcement.ts';
import type { NodeId } from '../net/transport.ts';
import type { Contribution } from './replica.ts';
import { isDecided, type RoundState } from './round-state.ts';

/** Nodes waited for besides the members, for each stage. */
const contributorsExpectedMax = 64;

/** An announcement is said again after this long, then after twice as long, until its round is decided. */
const repeatMsMin = 2_000;
const repeatMsMax = 30_000;

/** Announces this node's own contribution. */
export async function contribute(r: RoundState, made: Contribution, batches: number): Promise<void> {
  const { networkId, key, stage, transport, shelf, batchesMax, onKeepFailed } = r.options;
  const { blob, blobHash } = made;
  await shelf.keep(r.round, blobHash, blob).catch(onKeepFailed);
  const counted = Math.min(batches, batchesMax);
  const body = { round: r.round, stage, base: r.base, blobHash, blobBytes: blob.length, batches: counted };
  r.own = announce(networkId, body, key);
  r.pool.offer(r.own, transport.self);
  await transport.publish(contributionTopic, encodeAnnouncement(r.own));
  repeatOwn(r);
}

/** Says that this node has nothing to contribute, so that nobody waits for it. */
export async function pass(r: RoundState): Promise<void> {
  const { networkId, key, stage, transport } = r.options;
  const body = { round: r.round, stage, base: r.base, blobHash: nothing, blobBytes: 0, batches: 0 };
  r.own = announce(networkId, body, key);
  r.pool.offer(r.own, transport.self);
  await transport.publish(contributionTopic, encodeAnnouncement(r.own));
  repeatOwn(r);
}

const nothing = '0'.repeat(64);

/** Gossip loses messages, and who has just come back has heard none. */
export function repeatOwn(r: RoundState, delayMs = repeatMsMin): void {
  r.cancelRepeat();
  const said = r.own;
  if (!said || r.closed) return;
  const { clock, transport } = r.options;
  r.cancelRepeat = clock.setTimer(delayMs, () => {
    if (said !== r.own || isDecided(r)) return;
    transport.publish(contributionTopic, encodeAnnouncement(said)).catch(() => {});
    repeatOwn(r, Math.min(2 * delayMs, repeatMsMax));
  });
}

/** Takes an announcement from the topic: untrusted bytes. */
export function hear(r: RoundState, from: NodeId, message: Uint8Array): void {
  const { networkId, transport, shapes, onRejected } = r.options;
  const decoded = decodeAnnouncement(networkId, message);
  if (!decoded.ok) {
    transport.penalize(from, decoded.code);
    return;
  }
  const one = decoded.value;
  const offered = r.pool.offer(one, from);
  if (offered.ok || offered.code === 'not-wanted') return;
  // It came just too late for the round before: a node that is a little slower than the members is waited for from
  // now on, or its work would never count.
  if (one.round === r.round - 1 && r.lastContributors.size < contributorsExpectedMax * shapes.length)
    r.lastContributors.set(one.nodeId, one.stage);
  if (offered.code === 'equivocation') onRejected(r.round, one.nodeId, offered.code);
}
