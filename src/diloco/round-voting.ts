/**
 * What this node proposes to close a round with, and which proposals get its vote. When consensus asks, and what it
 * does with the answers, is not known here.
 */
import type { ProposalContext } from '../consensus/types.ts';
import type { Announcement } from '../ledger/announcement.ts';
import { basesFit, listable } from './round-bases.ts';
import { emptyStages, hasUnaudited } from './round-collecting.ts';
import { drawRoundList, encodeRoundList, type RoundList, shareOf } from './round-list.ts';
import { change, isDecided, listOf, type RoundState } from './round-state.ts';

/** The list of what is here; undefined when there is nothing to decide, or the chain already carries the round. */
export async function propose(r: RoundState, context: ProposalContext): Promise<Uint8Array | undefined> {
  if (isDecided(r) || carriesRound(r, context, r.round)) return undefined;
  if (!r.ripe && (emptyStages(r).length > 0 || hasUnaudited(r))) return undefined;
  const list = drawn(r);
  // Where no audit ended in time the round closes empty: all that was made goes on into the next one.
  const isDue = list.contributions.length > 0 || (r.ripe && r.auditsSinceMs !== undefined);
  return isDue ? encodeRoundList(list) : undefined;
}

/** Whether the proposal gets this node's vote; waits until this node has made up its mind, or the signal aborts. */
export async function validate(
  r: RoundState,
  payload: Uint8Array,
  context: ProposalContext,
): Promise<boolean> {
  const decoded = listOf(r, payload);
  if (!decoded.ok) return false;
  const list = decoded.value;
  const { signal } = context;
  if (list.round <= r.newestDecided || carriesRound(r, context, list.round)) return false;
  if (!(await reached(r, list.round, signal)) || !basesFit(r, list)) return false;
  const outcomes = await Promise.all(list.contributions.map((one) => r.pool.obtain(one)));
  if (!outcomes.every((outcome) => outcome.ok)) return false;
  // No vote before this node would itself close the round, or a hostile leader could close it with few in.
  while (!r.ripe && r.round === list.round && !signal.aborted) await change(r, signal);
  if (r.round !== list.round || signal.aborted) return false;
  return basesFit(r, list) && listsMost(r, list);
}

/** A proposer that leaves out most of what has arrived for a stage does not get this vote; the next will do better. */
function listsMost(r: RoundState, list: RoundList): boolean {
  const nameOf = ({ stage, base, nodeId }: Announcement) => `${stage}/${base}/${nodeId}`;
  const listed = new Set(list.contributions.map(nameOf));
  const ours = drawn(r);
  return r.options.shapes.every((_, stage) => {
    const here = shareOf(ours, stage).contributions;
    const missing = here.filter((one) => !listed.has(nameOf(one))).length;
    return 2 * missing <= here.length;
  });
}

/** The list that this node would close the round with now. */
function drawn(r: RoundState): RoundList {
  const { shapes, members } = r.options;
  return drawRoundList({ round: r.round, announcements: listable(r), stages: shapes.length, members });
}

function carriesRound(r: RoundState, context: ProposalContext, wanted: number): boolean {
  return context.undecided.some((payload) => {
    const list = listOf(r, payload);
    return list.ok && list.value.round >= wanted;
  });
}

/** Waits until this node stands in `wanted` (it may still be closing the round before). */
async function reached(r: RoundState, wanted: number, signal: AbortSignal): Promise<boolean> {
  while (r.round < wanted && !signal.aborted) await change(r, signal);
  return r.round === wanted;
}
