/**
 * When to ask for a decision: everybody expected has come, or the deadline has passed with something to decide. What
 * is proposed then, and what gets this node's vote, is not known here.
 */
import type { NodeId } from '../net/transport.ts';
import { arrivals, isDecided, type RoundState, wakeWaiting } from './round-state.ts';

/** To be called whenever something has changed that may make the round ripe. */
export function notice(r: RoundState): void {
  cancelDeadline(r);
  wakeWaiting(r);
  if (r.closed || r.round < 0 || r.pool.valid().length === 0 || isDecided(r)) return;
  const settled = r.pool.settled();
  if (expected(r).every((node) => settled.has(node))) {
    ripen(r);
    return;
  }
  const dueMs = r.deadline.collectingMs(arrivals(r), r.options.memberIds.length);
  if (dueMs === undefined) return;
  const { clock } = r.options;
  const leftMs = r.startedMs + dueMs - clock.nowMs();
  if (leftMs <= 0) ripen(r);
  else r.cancelTimer = clock.setTimer(leftMs, () => notice(r));
}

export function cancelDeadline(r: RoundState): void {
  r.cancelTimer();
  r.cancelTimer = () => {};
}

/** Nodes whose contribution is worth waiting for: members that are connected, and others who came last time. */
function expected({ options, lastContributors }: RoundState): NodeId[] {
  const { transport, memberIds } = options;
  const connected = new Set([transport.self, ...transport.peers()]);
  const wanted = new Set([...memberIds, ...lastContributors, transport.self]);
  return [...wanted].filter((node) => connected.has(node));
}

function ripen(r: RoundState): void {
  r.ripe = true;
  wakeWaiting(r);
  r.options.wake();
}
