/**
 * When to ask for a decision: every stage has all that is expected of it, or its deadline has passed, and there is
 * something to decide. What is proposed then, and what gets this node's vote, is not known here.
 */
import type { NodeId } from '../net/transport.ts';
import { withClearance } from './round-bases.ts';
import { arrivals, isDecided, isMember, type RoundState, wakeWaiting } from './round-state.ts';

/** To be called whenever something has changed that may make the round ripe. */
export function notice(r: RoundState): void {
  cancelDeadline(r);
  wakeWaiting(r);
  if (r.closed || r.round < 0 || r.pool.valid().length === 0 || isDecided(r)) return;
  const arrived = arrivals(r);
  // A stage whose nodes are all gone is waited for no longer than the others' pace allows.
  const dues = incompleteStages(r).map((stage) => r.deadlines.collectingMs(stage, arrived));
  if (dues.includes(undefined)) return;
  const dueMs = Math.max(0, ...dues.map((due) => due ?? 0));
  const { clock } = r.options;
  const leftMs = dues.length === 0 ? 0 : r.startedMs + dueMs - clock.nowMs();
  if (leftMs > 0) r.cancelTimer = clock.setTimer(leftMs, () => notice(r));
  else if (awaitsAudits(r)) letAuditsGoOn(r);
  else ripen(r);
}

/** Audits that take longer leave their contributions out: their nodes keep them as error feedback, for the next round. */
const auditMsMax = 600_000;
/** A node that was restored cannot prove what it made before: it is not waited for. */
const claimMsMax = 30_000;
/** Audits go on from block to block; the policy's `auditBlocks` of them must be time enough for one. */
const auditBeatMs = 2_000;

/** Whether the round waits for audits of what has come. */
function awaitsAudits(r: RoundState): boolean {
  if (!hasUnaudited(r)) return false;
  r.auditsSinceMs ??= r.options.clock.nowMs();
  const passedMs = r.options.clock.nowMs() - r.auditsSinceMs;
  return passedMs < (withClearance(r, 'claimed').length > 0 ? auditMsMax : claimMsMax);
}

/** Whether something that has come is still to stand its audit. */
export function hasUnaudited(r: RoundState): boolean {
  return withClearance(r, 'claimed').length > 0 || withClearance(r, 'unclaimed').length > 0;
}

/** Asks for a block every so often, if this node has a vote. */
function letAuditsGoOn(r: RoundState): void {
  const { clock, wake } = r.options;
  const nowMs = clock.nowMs();
  if (nowMs - r.askedMs >= auditBeatMs) {
    r.askedMs = nowMs;
    if (isMember(r)) wake();
  }
  r.cancelTimer = clock.setTimer(r.askedMs + auditBeatMs - nowMs, () => notice(r));
}

export function cancelDeadline(r: RoundState): void {
  r.cancelTimer();
  r.cancelTimer = () => {};
}

/** Stages without a contribution that could be listed, now or after its audit. A node without a vote looks at its own only. */
export function emptyStages(r: RoundState): number[] {
  const audited = (['cleared', 'claimed', 'unclaimed'] as const).flatMap((one) => withClearance(r, one));
  const filled = new Set(audited.map((one) => one.stage));
  return watchedStages(r).filter((stage) => !filled.has(stage));
}

/** Whether all that is expected of a stage has come; not known of another stage by a node without a vote. */
export function isComplete(r: RoundState, stage: number): boolean {
  return watchedStages(r).includes(stage) && !incompleteStages(r).includes(stage);
}

function watchedStages(r: RoundState): number[] {
  return isMember(r) ? [...r.options.shapes.keys()] : [r.options.stage];
}

/** Stages of which somebody is still expected, or that are empty though not all of their nodes have passed. */
function incompleteStages(r: RoundState): number[] {
  const empty = emptyStages(r);
  const settled = r.pool.settled();
  const passed = r.pool.passed();
  return watchedStages(r).filter((stage) => {
    const nodes = expected(r, stage);
    // A stage that lost its steps with its nodes' memory must not hold the others up for ever.
    if (empty.includes(stage)) return nodes.length === 0 || !nodes.every((node) => passed.has(node));
    return !nodes.every((node) => settled.has(node));
  });
}

/** Nodes whose contribution is worth waiting for: members that are connected, and others who came last time. */
function expected({ options, lastContributors }: RoundState, stage: number): NodeId[] {
  const { transport, members, stage: ownStage, isConvicted = () => false } = options;
  const connected = new Set([transport.self, ...transport.peers()]);
  const own = new Map([[transport.self, ownStage]]);
  const wanted = new Map([...members, ...lastContributors, ...own]);
  const isExpected = ([node, of]: readonly [NodeId, number]) =>
    of === stage && connected.has(node) && !isConvicted(node);
  return [...wanted].filter(isExpected).map(([node]) => node);
}

function ripen(r: RoundState): void {
  r.ripe = true;
  wakeWaiting(r);
  r.options.wake();
}
