/**
 * What the pool of one round holds, and the small questions that its rules ask of it. Plain data: what is taken in is
 * in `pool-offer.ts`, how a blob is had in `pool-obtain.ts`.
 */

import type { Announcement } from '../ledger/announcement.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { BlobShelf } from './blob-exchange.ts';
import { type BlobShape, blobBytes } from './compression/blob.ts';
import type { StageReplica } from './replica.ts';

export interface PoolOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly replica: StageReplica;
  readonly shelf: BlobShelf;
  /** The stage that this node holds. */
  readonly stage: number;
  /** Of the blobs of each stage. */
  readonly shapes: readonly BlobShape[];
  /** Whether it takes in contributions to every stage: its vote says that their blobs can be had. */
  readonly votes: boolean;
  /** Batches a node can have trained in one round. */
  readonly batchesMax: number;
  /** Whose announcements always find room, and the stage of each. */
  readonly members: ReadonlyMap<NodeId, number>;
  readonly onChange: () => void;
  readonly onRejected: (round: number, node: NodeId, code: string) => void;
}

export interface PoolEntry {
  readonly announcement: Announcement;
  /** Milliseconds of the clock when its blob was here and valid. */
  readonly validAtMs: number;
}

export interface PoolState {
  readonly options: PoolOptions;
  /** Announcements of later rounds, one for each node. */
  readonly early: Map<NodeId, Announcement>;
  round: number;
  base: HashHex;
  /** The first announcement of each node for this round; a second, different one never replaces it. */
  announced: Map<NodeId, Announcement>;
  valid: Map<NodeId, PoolEntry>;
  settled: Set<NodeId>;
  /** Those that said they have nothing to contribute. */
  passed: Set<NodeId>;
  /** Fetches under way or done, by node and blob: two nodes may name one blob. */
  pending: Map<string, Promise<Outcome<Uint8Array>>>;
  retries: Map<NodeId, number>;
  /** Aborts when the round is over, or begun again on another base. */
  generation: AbortController;
}

/** Nodes besides the members whose announcements are kept, for each stage: keys cost nothing, so there may be any number. */
const strangersMax = 64;

/** Empty, and in no round yet. */
export function newPoolState(options: PoolOptions): PoolState {
  return {
    options,
    early: new Map(),
    round: -1,
    base: '',
    announced: new Map(),
    valid: new Map(),
    settled: new Set(),
    passed: new Set(),
    pending: new Map(),
    retries: new Map(),
    generation: new AbortController(),
  };
}

/** A blob that is sound in one stage is not in another, so the stage is part of the name. */
export function keyOf({ nodeId, stage, blobHash }: Announcement): string {
  return `${nodeId}/${stage}/${blobHash}`;
}

/** Whether this node takes in contributions to that stage. */
export function isWanted({ options }: PoolState, stage: number): boolean {
  return options.votes || stage === options.stage;
}

/** Whether `known` has room for one more entry of this node. */
export function hasRoom(
  p: PoolState,
  known: ReadonlyMap<NodeId, unknown> | ReadonlySet<NodeId>,
  node: NodeId,
): boolean {
  const { members, shapes } = p.options;
  if (members.has(node) || known.has(node)) return true;
  let strangers = 0;
  for (const other of known.keys()) if (!members.has(other)) strangers++;
  return strangers < strangersMax * shapes.length;
}

/**
 * Whether the announcement fits the round. Codes: `wrong-round`, `wrong-stage`, `no-work` (its node passes: nothing is
 * to be expected of it), `wrong-base`, `wrong-shape`, `too-many-batches`. What the base of another stage is only that
 * stage's cohort can tell.
 */
export function check({ options, round, base }: PoolState, one: Announcement): Outcome<void> {
  if (one.round !== round) return reject('wrong-round', `${one.round}, now ${round}`);
  const shape = options.shapes[one.stage];
  if (!shape) return reject('wrong-stage', `${one.stage}`);
  if (one.batches === 0) return reject('no-work');
  if (one.stage === options.stage && one.base !== base) return reject('wrong-base');
  if (one.blobBytes !== blobBytes(shape.codec, shape.length))
    return reject('wrong-shape', `${one.blobBytes} bytes`);
  if (one.batches > options.batchesMax) return reject('too-many-batches');
  return accept(undefined);
}

/** Notes that nothing valid is to be expected from this node for now. */
export function settleRefused(p: PoolState, node: NodeId, code: string): void {
  if (p.settled.has(node) || !hasRoom(p, p.settled, node)) return;
  p.settled.add(node);
  if (code === 'no-work') p.passed.add(node);
  else p.options.onRejected(p.round, node, code);
  p.options.onChange();
}

/** Notes that this contribution is here and valid. */
export function settleValid(p: PoolState, one: Announcement): void {
  if (p.valid.has(one.nodeId)) return;
  p.valid.set(one.nodeId, { announcement: one, validAtMs: p.options.clock.nowMs() });
  p.settled.add(one.nodeId);
  p.options.onChange();
}
