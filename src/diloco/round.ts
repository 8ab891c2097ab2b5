/**
 * One node's part in closing rounds: announcements in and out, when to ask for a decision, what to propose, what to
 * vote for, and the decided lists in order, one file each (`round-*.ts`). It drives the consensus replica as its
 * application; it does not train and does not aggregate.
 */
import type { Application } from '../consensus/types.ts';
import { type Announcement, announcementBytesMax, contributionTopic } from '../ledger/announcement.ts';
import type { HashHex } from '../std/hash.ts';
import { createContributionPool } from './contribution-pool.ts';
import type { Contribution } from './replica.ts';
import { contribute, hear, pass, repeatOwn } from './round-announcing.ts';
import { isComplete, notice } from './round-collecting.ts';
import { blobsOf, type Closing, closingOf, decision, takeDecision } from './round-deciding.ts';
import type { RoundList } from './round-list.ts';
import {
  arrivals,
  contributions,
  isCounted,
  isDecided,
  newRoundState,
  ownShare,
  type RoundOptions,
  type RoundState,
} from './round-state.ts';
import { propose, validate } from './round-voting.ts';

export interface RoundCoordinator {
  readonly application: Pick<Application, 'propose' | 'validate' | 'decided'>;
  /** A decision of consensus was about something else, and used up what this asked it for. */
  remind(): void;
  /** Starts collecting for a round; `base` is the state hash that this node's stage begins it in. */
  begin(round: number, base: HashHex): void;
  /** Announces this node's own contribution. */
  contribute(contribution: Contribution, batches: number): Promise<void>;
  /** Says that this node made no step in the round, so that nobody waits for it. */
  pass(): Promise<void>;
  /**
   * The decided list of the round that has begun; undefined when only later ones are known (this node was away and
   * must fetch a state). Rejects when the signal aborts.
   */
  decision(signal: AbortSignal): Promise<RoundList | undefined>;
  /** What the decided list of this round says of this node, if it is decided and names it. */
  ownShare(): Announcement | undefined;
  /** Whether the list of this very round names this node's contribution; null while it is not known here. */
  isCounted(): boolean | null;
  /** Whether the list of this round is decided, or a later one. */
  isDecided(): boolean;
  /** The newest round whose list this node has seen decided; −1 before the first. */
  newestDecided(): number;
  /** Whether a node that still trains should contribute what it has. */
  isLate(): boolean;
  /** Whether all that is expected of a stage has come; false where this node, without a vote, does not look. */
  isComplete(stage: number): boolean;
  /** Contributions of the round that are here and valid, own included. */
  contributions(): readonly Announcement[];
  /**
   * What the decided list of the round means for the stage that this node holds; undefined when it is against another
   * base, and this node's may be the wrong one.
   */
  closing(list: RoundList): Closing | undefined;
  /** Blobs of contributions to that stage, in order; undefined when one cannot be had, or the signal aborts. */
  blobsOf(listed: readonly Announcement[], signal: AbortSignal): Promise<readonly Uint8Array[] | undefined>;
  close(): void;
}

export function createRoundCoordinator(options: RoundOptions): RoundCoordinator {
  const { transport, members, key } = options;
  const votes = members.has(key.nodeId);
  const pool = createContributionPool({ ...options, votes, onChange: () => notice(r) });
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
    remind: () => notice(r),
    begin: (round, base) => begin(r, round, base),
    contribute: (made, batches) => contribute(r, made, batches),
    pass: () => pass(r),
    decision: (signal) => decision(r, signal),
    ownShare: () => ownShare(r),
    isCounted: () => isCounted(r),
    isDecided: () => isDecided(r),
    newestDecided: () => r.newestDecided,
    isLate: () => isLate(r),
    isComplete: (stage) => isComplete(r, stage),
    contributions: () => contributions(r),
    closing: (list) => closingOf(r, list),
    blobsOf: (listed, signal) => blobsOf(r, listed, signal),
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
  r.auditsSinceMs = undefined;
  r.own = undefined;
  r.cancelRepeat();
  for (const known of r.decided.keys()) if (known < round) r.decided.delete(known);
  r.pool.begin(round, base);
  notice(r);
}

/** What the round that is left tells of the next one: how long it may take, and who may come. */
function learnFrom(r: RoundState, nextRound: number): void {
  if (r.onTime) r.deadlines.record(arrivals(r));
  r.lastContributors = new Map(contributions(r).map(({ nodeId, stage }) => [nodeId, stage]));
  r.onTime = nextRound === r.round + 1 && r.decided.has(r.round);
}

function isLate(r: RoundState): boolean {
  const dueMs = r.deadlines.trainingMs(r.options.stage);
  return dueMs !== undefined && r.options.clock.nowMs() - r.startedMs >= dueMs;
}

function close(r: RoundState): void {
  r.closed = true;
  r.cancelTimer();
  r.cancelRepeat();
  r.pool.close();
}
