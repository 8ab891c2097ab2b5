/**
 * One node's part in closing rounds: announcements in and out, when to ask for a decision, what to propose, what to
 * vote for, and the decided lists in order. It drives the consensus replica as its application; it does not train and
 * does not aggregate.
 */
import type { Application, DecidedBlock, ProposalContext } from '../consensus/types.ts';
import type { KeyPair } from '../identity/keys.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { assert } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import {
  type Announcement,
  announce,
  announcementBytesMax,
  decodeAnnouncement,
  encodeAnnouncement,
} from './announcement.ts';
import type { BlobShelf } from './blob-exchange.ts';
import { type ContributionPool, createContributionPool } from './contribution-pool.ts';
import { createRoundDeadline } from './deadline.ts';
import type { Contribution, StageReplica } from './replica.ts';
import { decodeRoundList, drawRoundList, encodeRoundList, type RoundList } from './round-list.ts';

export const contributionTopic = 'contribution';

export interface RoundOptions {
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
  readonly memberIds: readonly NodeId[];
  readonly transport: Transport;
  readonly clock: Clock;
  readonly replica: StageReplica;
  readonly shelf: BlobShelf;
  readonly blobBytes: number;
  readonly batchesMax: number;
  /** Asks consensus for a decision (`ConsensusReplica.wake`). */
  readonly wake: () => void;
  readonly onRejected: (round: number, node: NodeId, code: string) => void;
  /** This node's own blob could not be made durable: it is served all the same, until a crash. */
  readonly onKeepFailed: (error: unknown) => void;
}

export interface RoundCoordinator {
  readonly application: Pick<Application, 'propose' | 'validate' | 'decided'>;
  /** Starts collecting for a round whose base this node holds. */
  begin(round: number, base: HashHex): void;
  /** Announces this node's own contribution. */
  contribute(contribution: Contribution, batches: number): Promise<void>;
  /**
   * The decided list of the round that has begun; undefined when only later ones are known (this node was away and
   * must fetch a state). Rejects when the signal aborts.
   */
  decision(signal: AbortSignal): Promise<RoundList | undefined>;
  /** What the decided list of this round says of this node, if it is decided and names it. */
  ownShare(): Announcement | undefined;
  /** Whether the list of this round is decided, or a later one. */
  isDecided(): boolean;
  /** The newest round whose list this node has seen decided; −1 before the first. */
  newestDecided(): number;
  /** Whether a node that still trains should contribute what it has. */
  isLate(): boolean;
  /** Contributions of the round that are here and valid, own included. */
  contributions(): readonly Announcement[];
  /** Blobs of a decided list, in its order; undefined when one cannot be had from anyone, or the signal aborts. */
  blobsOf(list: RoundList, signal: AbortSignal): Promise<readonly Uint8Array[] | undefined>;
  close(): void;
}

/** Nodes waited for besides the members. */
const contributorsExpectedMax = 64;

/** An announcement is said again after this long, then after twice as long, until its round is decided. */
const repeatMsMin = 2_000;
const repeatMsMax = 30_000;

/** Decided lists kept until their round is closed here. */
const decidedKept = 64;

export function createRoundCoordinator(options: RoundOptions): RoundCoordinator {
  const { networkId, key, transport, clock } = options;
  const deadline = createRoundDeadline();
  const members: ReadonlySet<NodeId> = new Set(options.memberIds);
  const decided = new Map<number, RoundList>();
  const waiting = new Set<() => void>();
  let round = -1;
  let base: HashHex = '';
  let startedMs = 0;
  /** Whether this node began the round with the others, so that arrivals tell how long a round takes. */
  let onTime = true;
  let closed = false;
  /** Whether this node would close the round with what has come. */
  let ripe = false;
  let newestDecided = -1;
  let cancelTimer = () => {};
  /** This node's announcement of the round. */
  let own: Announcement | undefined;
  let cancelRepeat = () => {};
  let lastContributors = new Set<NodeId>();

  const pool: ContributionPool = createContributionPool({
    ...options,
    onChange: () => notice(),
  });

  const arrivals = () => pool.valid().map((entry) => entry.validAtMs - startedMs);

  /** Nodes whose contribution is worth waiting for: members that are connected, and others who came last time. */
  const expected = (): NodeId[] => {
    const connected = new Set([transport.self, ...transport.peers()]);
    const wanted = new Set([...options.memberIds, ...lastContributors, transport.self]);
    return [...wanted].filter((node) => connected.has(node));
  };

  /** Wakes consensus when everybody expected has come, or the deadline has passed with something to decide. */
  const notice = () => {
    cancelTimer();
    cancelTimer = () => {};
    wakeWaiting();
    if (closed || round < 0 || pool.valid().length === 0 || newestDecided >= round) return;
    const settled = pool.settled();
    if (expected().every((node) => settled.has(node))) return ripen();
    const dueMs = deadline.collectingMs(arrivals(), options.memberIds.length);
    if (dueMs === undefined) return;
    const leftMs = startedMs + dueMs - clock.nowMs();
    if (leftMs <= 0) ripen();
    else cancelTimer = clock.setTimer(leftMs, notice);
  };

  /** Gossip loses messages, and who has just come back has heard none. */
  const repeatAnnouncement = (delayMs: number) => {
    cancelRepeat();
    const said = own;
    if (!said || closed) return;
    cancelRepeat = clock.setTimer(delayMs, () => {
      if (said !== own || newestDecided >= round) return;
      transport.publish(contributionTopic, encodeAnnouncement(said)).catch(() => {});
      repeatAnnouncement(Math.min(2 * delayMs, repeatMsMax));
    });
  };

  const ripen = () => {
    ripe = true;
    wakeWaiting();
    options.wake();
  };

  const wakeWaiting = () => {
    for (const resume of [...waiting]) resume();
  };

  const propose = async (context: ProposalContext) => {
    if (pool.valid().length === 0 || newestDecided >= round || carriesRound(context, round)) return undefined;
    return encodeRoundList(drawn());
  };

  /** The list that this node would close the round with now. */
  const drawn = () => {
    const announcements = pool.valid().map((entry) => entry.announcement);
    return drawRoundList(round, base, announcements, members);
  };

  const carriesRound = (context: ProposalContext, wanted: number) =>
    context.undecided.some((payload) => {
      const list = decodeRoundList(networkId, payload);
      return list.ok && list.value.round >= wanted;
    });

  const validate = async (payload: Uint8Array, context: ProposalContext) => {
    const decoded = decodeRoundList(networkId, payload);
    if (!decoded.ok) return false;
    const list = decoded.value;
    if (list.round <= newestDecided || carriesRound(context, list.round)) return false;
    if (!(await reached(list.round, context.signal)) || list.round !== round || list.base !== base)
      return false;
    const outcomes = await Promise.all(list.contributions.map((one) => pool.obtain(one)));
    if (!outcomes.every((outcome) => outcome.ok)) return false;
    // No vote before this node would itself close the round, or a hostile leader could close it with few in.
    while (!ripe && round === list.round && !context.signal.aborted) await change(context.signal);
    if (round !== list.round || context.signal.aborted) return false;
    // A proposer that leaves out most of what has arrived does not get this vote; the next leader will do better.
    const listed = new Set(list.contributions.map((one) => one.nodeId));
    const here = drawn().contributions;
    const missing = here.filter((one) => !listed.has(one.nodeId)).length;
    return 2 * missing <= here.length;
  };

  /** Waits until this node stands in `wanted` (it may still be closing the round before). */
  const reached = async (wanted: number, signal: AbortSignal): Promise<boolean> => {
    while (round < wanted && !signal.aborted) await change(signal);
    return round === wanted;
  };

  /** Resolves when anything has changed, or the signal aborts. */
  const change = (signal: AbortSignal): Promise<void> =>
    new Promise((resolve) => {
      const resume = () => {
        waiting.delete(resume);
        signal.removeEventListener('abort', resume);
        resolve();
      };
      waiting.add(resume);
      signal.addEventListener('abort', resume);
    });

  const onDecided = ({ block }: DecidedBlock) => {
    const list = decodeRoundList(networkId, block.payload);
    assert(list.ok, 'consensus decided a list that no honest member can have voted for');
    // Voters that have not heard of a decision yet may let a second list of its round pass: the first one counts. A
    // node that fetched the state is ahead of consensus. Either way the decision used up the wake-up of our round.
    if (list.value.round <= newestDecided || list.value.round < round) return notice();
    decided.set(list.value.round, list.value);
    newestDecided = Math.max(newestDecided, list.value.round);
    for (const known of decided.keys()) if (decided.size > decidedKept) decided.delete(known);
    cancelTimer();
    wakeWaiting();
  };

  const unsubscribe = transport.subscribe(contributionTopic, announcementBytesMax, (from, message) => {
    const decoded = decodeAnnouncement(networkId, message);
    if (!decoded.ok) return transport.penalize(from, decoded.code);
    const offered = pool.offer(decoded.value, from);
    // It came just too late for the round before: a node that is a little slower than the members is waited for from
    // now on, or its work would never count.
    const isLatecomer = !offered.ok && decoded.value.round === round - 1;
    if (isLatecomer && lastContributors.size < contributorsExpectedMax)
      lastContributors.add(decoded.value.nodeId);
    if (!offered.ok && offered.code === 'equivocation')
      options.onRejected(round, decoded.value.nodeId, offered.code);
    return undefined;
  });
  const unlisten = transport.onPeerChange((_peer, connected) => {
    if (connected) repeatAnnouncement(repeatMsMin);
    notice();
  });

  return {
    application: { propose, validate, decided: onDecided },
    begin: (nextRound, nextBase) => {
      if (round >= 0) {
        if (onTime) deadline.record(arrivals());
        lastContributors = new Set(pool.valid().map((entry) => entry.announcement.nodeId));
        onTime = nextRound === round + 1 && decided.has(round);
      }
      round = nextRound;
      base = nextBase;
      startedMs = clock.nowMs();
      ripe = false;
      own = undefined;
      cancelRepeat();
      for (const known of decided.keys()) if (known < round) decided.delete(known);
      pool.begin(round, base);
      notice();
    },
    contribute: async ({ blob, blobHash }, batches) => {
      await options.shelf.keep(round, blobHash, blob).catch(options.onKeepFailed);
      const body = { round, base, blobHash, blobBytes: blob.length, batches };
      own = announce(networkId, body, key);
      pool.offer(own, transport.self);
      await transport.publish(contributionTopic, encodeAnnouncement(own));
      repeatAnnouncement(repeatMsMin);
    },
    decision: async (signal) => {
      for (;;) {
        if (newestDecided >= round) return decided.get(round);
        signal.throwIfAborted();
        await change(signal);
      }
    },
    ownShare: () => decided.get(round)?.contributions.find((one) => one.nodeId === key.nodeId),
    isDecided: () => newestDecided >= round,
    newestDecided: () => newestDecided,
    isLate: () => {
      const dueMs = deadline.trainingMs();
      return dueMs !== undefined && clock.nowMs() - startedMs >= dueMs;
    },
    contributions: () => pool.valid().map((entry) => entry.announcement),
    blobsOf: async (list, signal) => {
      const outcomes = await unlessAborted(
        Promise.all(list.contributions.map((one) => pool.obtain(one))),
        signal,
      );
      const blobs = outcomes?.map((outcome) => (outcome.ok ? outcome.value : undefined));
      return blobs?.every((blob) => blob !== undefined) ? blobs : undefined;
    },
    close: () => {
      closed = true;
      cancelTimer();
      cancelRepeat();
      pool.close();
      unsubscribe();
      unlisten();
    },
  };
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
