/**
 * Where one node stands in closing a round, and the small questions that its rules ask. Plain data: each rule is in
 * the file named for it, and calls `wakeWaiting` when it changed something that another may wait for.
 */
import type { KeyPair } from '../identity/keys.ts';
import type { Announcement } from '../ledger/announcement.ts';
import type { Clearance } from '../ledger/clearance.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import type { BlobShelf } from './blob-exchange.ts';
import type { BlobShape } from './compression/blob.ts';
import type { ContributionPool } from './contribution-pool.ts';
import { type Arrival, createStageDeadlines, type StageDeadlines } from './deadline.ts';
import type { StageReplica } from './replica.ts';
import { decodeRoundList, type RoundList, shareOf } from './round-list.ts';

export interface RoundOptions {
  readonly networkId: Uint8Array;
  readonly key: KeyPair;
  /** The stage that this node holds. */
  readonly stage: number;
  /** Of the blobs of each stage: there are as many stages. */
  readonly shapes: readonly BlobShape[];
  /** Members, and the stage of each. */
  readonly members: ReadonlyMap<NodeId, number>;
  /** The state that the cohort of a stage has agreed to begin a round in, if it is known. */
  readonly agreedBase: (round: number, stage: number) => HashHex | undefined;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly replica: StageReplica;
  readonly shelf: BlobShelf;
  readonly batchesMax: number;
  /**
   * Whether a contribution to a stage with so many contributors may be listed: in a small cohort only after its audit. All
   * may, where it is not given.
   */
  readonly clearance?: (one: Announcement, contributors: number) => Clearance;
  /** Whether a node was found to lie about its batches: nobody serves it, so nothing of it can come. */
  readonly isConvicted?: (node: NodeId) => boolean;
  /** Asks consensus for a decision (`ConsensusReplica.wake`). */
  readonly wake: () => void;
  readonly onRejected: (round: number, node: NodeId, code: string) => void;
  /** This node's own blob could not be made durable: it is served all the same, until a crash. */
  readonly onKeepFailed: (error: unknown) => void;
}

export interface RoundState {
  readonly options: RoundOptions;
  readonly deadlines: StageDeadlines;
  readonly pool: ContributionPool;
  /** Lists by round, from the one that has begun on. */
  readonly decided: Map<number, RoundList>;
  newestDecided: number;
  /** The newest lists seen, by the hash of their payload. */
  readonly seen: Map<HashHex, RoundList>;
  /** Resumes of those who wait for a change. */
  readonly waiting: Set<() => void>;
  round: number;
  /** Of the stage that this node holds. */
  base: HashHex;
  startedMs: number;
  /** Whether this node began the round with the others, so that arrivals tell how long a round takes. */
  onTime: boolean;
  /** When all had come of which some still wait for their audits; undefined before. */
  auditsSinceMs: number | undefined;
  /** When a block was asked for last, so that audits go on. */
  askedMs: number;
  /** Whether this node would close the round with what has come. */
  ripe: boolean;
  closed: boolean;
  /** This node's announcement of the round. */
  own: Announcement | undefined;
  /** Who contributed to the round before, and to which stage. */
  lastContributors: Map<NodeId, number>;
  cancelTimer: () => void;
  cancelRepeat: () => void;
}

/** Before the first round. */
export function newRoundState(options: RoundOptions, pool: ContributionPool): RoundState {
  return {
    options,
    deadlines: createStageDeadlines(
      options.shapes.map((_, stage) => [...options.members.values()].filter((of) => of === stage).length),
    ),
    pool,
    decided: new Map(),
    newestDecided: -1,
    seen: new Map(),
    waiting: new Set(),
    round: -1,
    base: '',
    startedMs: 0,
    onTime: true,
    auditsSinceMs: undefined,
    askedMs: Number.NEGATIVE_INFINITY,
    ripe: false,
    closed: false,
    own: undefined,
    lastContributors: new Map(),
    cancelTimer: () => {},
    cancelRepeat: () => {},
  };
}

const seenMax = 8;

/** The list of a payload, or what is wrong with it. Consensus shows each payload several times: it is checked once. */
export function listOf(r: RoundState, payload: Uint8Array): Outcome<RoundList> {
  const hash = sha256Hex(payload);
  const known = r.seen.get(hash);
  if (known) return accept(known);
  const decoded = decodeRoundList(r.options.networkId, payload);
  if (!decoded.ok) return decoded;
  r.seen.set(hash, decoded.value);
  for (const old of r.seen.keys()) if (r.seen.size > seenMax) r.seen.delete(old);
  return decoded;
}

/** Whether the list of this round is decided, or a later one. */
export function isDecided(r: RoundState): boolean {
  return r.newestDecided >= r.round;
}

/** Whether this node has a vote, and so takes part in closing the round for every stage. */
export function isMember({ options }: RoundState): boolean {
  return options.members.has(options.key.nodeId);
}

/** This node's announcement on the decided list of the round, if it is decided and names it. */
export function ownShare(r: RoundState): Announcement | undefined {
  const list = r.decided.get(r.round);
  const share = list && shareOf(list, r.options.stage);
  if (share?.base !== r.base) return undefined;
  return share.contributions.find((one) => one.nodeId === r.options.key.nodeId);
}

/** Whether the list of this very round names this node's contribution; null while it is not known here. */
export function isCounted(r: RoundState): boolean | null {
  return r.decided.has(r.round) ? ownShare(r) !== undefined : null;
}

/** When each valid contribution of the round was here, after this node's start of it. */
export function arrivals(r: RoundState): Arrival[] {
  return r.pool.valid().map(({ announcement, validAtMs }) => {
    return { stage: announcement.stage, atMs: validAtMs - r.startedMs };
  });
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
