/**
 * Where one node stands in closing a round, and the small questions that its rules ask. Plain data: each rule is in
 * the file named for it, and calls `wakeWaiting` when it changed something that another may wait for.
 */
import type { KeyPair } from '../identity/keys.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import type { Announcement } from './announcement.ts';
import type { BlobShelf } from './blob-exchange.ts';
import type { ContributionPool } from './contribution-pool.ts';
import { createRoundDeadline, type RoundDeadline } from './deadline.ts';
import type { StageReplica } from './replica.ts';
import type { RoundList } from './round-list.ts';

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

export interface RoundState {
  readonly options: RoundOptions;
  readonly members: ReadonlySet<NodeId>;
  readonly deadline: RoundDeadline;
  readonly pool: ContributionPool;
  /** Lists by round, from the one that has begun on. */
  readonly decided: Map<number, RoundList>;
  newestDecided: number;
  /** Resumes of those who wait for a change. */
  readonly waiting: Set<() => void>;
  round: number;
  base: HashHex;
  startedMs: number;
  /** Whether this node began the round with the others, so that arrivals tell how long a round takes. */
  onTime: boolean;
  /** Whether this node would close the round with what has come. */
  ripe: boolean;
  closed: boolean;
  /** This node's announcement of the round. */
  own: Announcement | undefined;
  lastContributors: Set<NodeId>;
  cancelTimer: () => void;
  cancelRepeat: () => void;
}

/** Before the first round. */
export function newRoundState(options: RoundOptions, pool: ContributionPool): RoundState {
  return {
    options,
    members: new Set(options.memberIds),
    deadline: createRoundDeadline(),
    pool,
    decided: new Map(),
    newestDecided: -1,
    waiting: new Set(),
    round: -1,
    base: '',
    startedMs: 0,
    onTime: true,
    ripe: false,
    closed: false,
    own: undefined,
    lastContributors: new Set(),
    cancelTimer: () => {},
    cancelRepeat: () => {},
  };
}

/** Whether the list of this round is decided, or a later one. */
export function isDecided(r: RoundState): boolean {
  return r.newestDecided >= r.round;
}

/** When each valid contribution of the round was here, in milliseconds after this node's start of it. */
export function arrivals(r: RoundState): number[] {
  return r.pool.valid().map((entry) => entry.validAtMs - r.startedMs);
}

/** Contributions of the round that are here and valid, own included. */
export function contributions(r: RoundState): Announcement[] {
  return r.pool.valid().map((entry) => entry.announcement);
}

export function wakeWaiting(r: RoundState): void {
  for (const resume of [...r.waiting]) resume();
}

/** Resolves when anything has changed, or the signal aborts. */
export function change(r: RoundState, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const resume = () => {
      r.waiting.delete(resume);
      signal.removeEventListener('abort', resume);
      resolve();
    };
    r.waiting.add(resume);
    signal.addEventListener('abort', resume);
  });
}
