/**
 * Which announcements the pool takes in: the first of each node that fits the round, those of the next rounds for
 * later, and again what could not be fetched before. How a blob is fetched is not known here.
 */

import type { Announcement } from '../ledger/announcement.ts';
import type { NodeId } from '../net/transport.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { obtain } from './pool-obtain.ts';
import { check, hasRoom, isWanted, keyOf, type PoolState, settleRefused } from './pool-state.ts';

const roundsAheadMax = 2;
/** Times that one node's announcement, said again, makes this node try to fetch its blob again. */
const retriesMax = 8;

/** Codes: those of `check`, `not-wanted` (another stage's), `equivocation`, `too-many-contributors`. */
export function offer(p: PoolState, one: Announcement, from: NodeId): Outcome<void> {
  if (!isWanted(p, one.stage)) return reject('not-wanted');
  if (one.round > p.round && one.round <= p.round + roundsAheadMax) {
    if (hasRoom(p, p.early, one.nodeId)) p.early.set(one.nodeId, one);
    return accept(undefined);
  }
  const checked = check(p, one);
  if (!checked.ok) {
    if (one.round === p.round) settleRefused(p, one.nodeId, checked.code);
    return checked;
  }
  const known = p.announced.get(one.nodeId);
  if (known) {
    if (keyOf(known) !== keyOf(one)) return reject('equivocation');
    retry(p, known, from);
    return accept(undefined);
  }
  if (!hasRoom(p, p.announced, one.nodeId)) return reject('too-many-contributors');
  p.announced.set(one.nodeId, one);
  void obtain(p, one, from);
  return accept(undefined);
}

/** Said again: what could not be fetched then may be had now. */
function retry(p: PoolState, one: Announcement, from: NodeId): void {
  const tried = p.retries.get(one.nodeId) ?? 0;
  if (p.valid.has(one.nodeId) || p.pending.has(keyOf(one)) || tried >= retriesMax) return;
  p.retries.set(one.nodeId, tried + 1);
  void obtain(p, one, from);
}

/** Takes in what had come too early for the rounds before. */
export function offerEarly(p: PoolState): void {
  for (const [node, one] of p.early) {
    if (one.round > p.round) continue;
    p.early.delete(node);
    if (one.round === p.round) offer(p, one, node);
  }
}
