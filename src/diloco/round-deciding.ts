/**
 * The decided lists: which one counts for a round, waiting for it, and the blobs that it names. How they came to be
 * decided is the business of consensus, what is done with the blobs that of the replica.
 */
import type { DecidedBlock } from '../consensus/types.ts';
import type { Announcement } from '../ledger/announcement.ts';
import type { NodeId } from '../net/transport.ts';
import { assert } from '../std/assert.ts';
import { cancelDeadline, notice } from './round-collecting.ts';
import { type RoundList, shareOf } from './round-list.ts';
import { change, isDecided, listOf, type RoundState, wakeWaiting } from './round-state.ts';

/** Decided lists kept until their round is closed here. */
const decidedKept = 64;

/** Takes the next decision of consensus. */
export function takeDecision(r: RoundState, { block }: DecidedBlock): void {
  const decoded = listOf(r, block.payload);
  assert(decoded.ok, 'consensus decided a list that no honest member can have voted for');
  const list = decoded.value;
  // Voters that have not heard of a decision yet may let a second list of its round pass: the first one counts. A
  // node that fetched the state is ahead of consensus. Either way the decision used up the wake-up of our round.
  if (list.round <= r.newestDecided || list.round < r.round) {
    notice(r);
    return;
  }
  r.decided.set(list.round, list);
  r.newestDecided = Math.max(r.newestDecided, list.round);
  for (const known of r.decided.keys()) if (r.decided.size > decidedKept) r.decided.delete(known);
  cancelDeadline(r);
  wakeWaiting(r);
}

/**
 * The decided list of the round that has begun; undefined when only later ones are known. Rejects when the signal
 * aborts.
 */
export async function decision(r: RoundState, signal: AbortSignal): Promise<RoundList | undefined> {
  for (;;) {
    if (isDecided(r)) return r.decided.get(r.round);
    signal.throwIfAborted();
    await change(r, signal);
  }
}

/** What a decided list means for the stage that this node holds. */
export interface Closing {
  /** In the decided order; with none of them the stage keeps its weights, and goes on to the next round all the same. */
  readonly contributions: readonly Announcement[];
  /** Listed, and left out by the whole cohort before screening. */
  readonly rejected: readonly { readonly node: NodeId; readonly code: 'wrong-base' }[];
}

/**
 * The own stage's part of a decided list of this round; undefined when it is against another base and this node does
 * not know that its own is the one its cohort agreed on: then it may be this node that stands in the wrong place.
 */
export function closingOf(r: RoundState, list: RoundList): Closing | undefined {
  const { stage, agreedBase } = r.options;
  const { contributions, base } = shareOf(list, stage);
  if (base === undefined || base === r.base) return { contributions, rejected: [] };
  if (agreedBase(list.round, stage) !== r.base) return undefined;
  const rejected = contributions.map(({ nodeId }) => ({ node: nodeId, code: 'wrong-base' as const }));
  return { contributions: [], rejected };
}

/** Their blobs, in order; undefined when one cannot be had from anyone, or the signal aborts. */
export async function blobsOf(
  r: RoundState,
  listed: readonly Announcement[],
  signal: AbortSignal,
): Promise<readonly Uint8Array[] | undefined> {
  const all = Promise.all(listed.map((one) => r.pool.obtain(one)));
  const outcomes = await unlessAborted(all, signal);
  const blobs = outcomes?.map((outcome) => (outcome.ok ? outcome.value : undefined));
  return blobs?.every((blob) => blob !== undefined) ? blobs : undefined;
}

/** What `work` gives, or undefined as soon as the signal aborts. `work` must not reject. */
async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T | undefined> {
  if (signal.aborted) return undefined;
  let onAbort = () => {};
  const aborted = new Promise<undefined>((resolve) => {
    onAbort = () => resolve(undefined);
    signal.addEventListener('abort', onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}
