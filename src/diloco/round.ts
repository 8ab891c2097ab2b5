/**
 * One node's part in closing rounds: announcements in and out, when to ask for a decision, what to propose, what to
 * vote for, and the decided lists in order, one file each (`round-*.ts`). It drives the consensus replica as its
 * application; it does not train and does not aggregate.
 */
import type { Application } from '../consensus/types.ts';
import type { HashHex } from '../std/hash.ts';
import { type Announcement, announcementBytesMax, contributionTopic } from './announcement.ts';
import { createContributionPool } from './contribution-pool.ts';
import type { Contribution } from './replica.ts';
import { contribute, hear, repeatOwn } from './round-announcing.ts';
import { notice } from './round-collecting.ts';
import { blobsOf, decision, takeDecision } from './round-deciding.ts';
import type { RoundList } from './round-list.ts';
import {
  arrivals,
  contributions,
  isDecided,
  newRoundState,
  type RoundOptions,
  type RoundState,
} from './round-state.ts';
import { propose, validate } from './round-voting.ts';

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

export function createRoundCoordinator(options: RoundOptions): RoundCoordinator {
  const { transport, key } = options;
  const pool = createContributionPool({ ...options, onChange: () => notice(r) });
  const r = newRoundState(options, pool);
  const unsubscribe = transport.subscribe(contributionTopic, announcementBytesMax, (from, message) =>
    hear(r, from, message),
  );
  const unlisten = transport.onPeerChange((_peer, connected) => {
    if (connected) repeatOwn(r);
    notice(r);
  });
  return {
    application: {
      propose: (context) => propose(r, context),
      validate: (payload, context) => validate(r, payload, context),
      decided: (block) => takeDecision(r, block),
    },
    begin: (round, base) => begin(r, round, base),
    contribute: (made, batches) => contribute(r, made, batches),
    decision: (signal) => decision(r, signal),
    ownShare: () => r.decided.get(r.round)?.contributions.find((one) => one.nodeId === key.nodeId),
    isDecided: () => isDecided(r),
    newestDecided: () => r.newestDecided,
    isLate: () => isLate(r),
    contributions: () => contributions(r),
    blobsOf: (list, signal) => blobsOf(r, list, signal),
    close: () => {
      close(r);
      unsubscribe();
      unlisten();
    },
  };
}

function begin(r: RoundState, round: number, base: HashHex): void {
  if (r.round >= 0) learnFrom(r, round);
  r.round = round;
  r.base = base;
  r.startedMs = r.options.clock.nowMs();
  r.ripe = false;
  r.own = undefined;
  r.cancelRepeat();
  for (const known of r.decided.keys()) if (known < round) r.decided.delete(known);
  r.pool.begin(round, base);
  notice(r);
}

/** What the round that is left tells of the next one: how long it may take, and who may come. */
function learnFrom(r: RoundState, nextRound: number): void {
  if (r.onTime) r.deadline.record(arrivals(r));
  r.lastContributors = new Set(contributions(r).map((one) => one.nodeId));
  r.onTime = nextRound === r.round + 1 && r.decided.has(r.round);
}

function isLate(r: RoundState): boolean {
  const dueMs = r.deadline.trainingMs();
  return dueMs !== undefined && r.options.clock.nowMs() - r.startedMs >= dueMs;
}

function close(r: RoundState): void {
  r.closed = true;
  r.cancelTimer();
  r.cancelRepeat();
  r.pool.close();
}
