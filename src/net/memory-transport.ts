/**
 * The network in memory: a hub that joins many nodes in one process, with delay, loss, partitions and crashes, for
 * tests and the simulator. Everything happens on the given clock and randomness, so a seed replays exactly. It
 * keeps the limits and codes of the real transport; it does not know what the messages mean.
 */
import type { Clock } from '../std/clock.ts';
import type { Random } from '../std/random.ts';
import type { ScorePolicy } from './peer-score.ts';
import type { NodeId, Transport } from './transport.ts';

/** What becomes of one message on its way. */
export interface LinkVerdict {
  /** Until the last byte arrives. */
  readonly delayMs: number;
  /** A lost announcement never arrives; a lost request or response makes its caller see `stalled`. */
  readonly lost: boolean;
}

export interface MemoryHubOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Judges every message. Without it: 1 to 5 ms, nothing lost. Messages of one link may overtake each other. */
  readonly link?: (from: NodeId, to: NodeId, bytes: number) => LinkVerdict;
  readonly scorePolicy?: ScorePolicy;
}

export interface MemoryHub {
  /** Connects a node to all others. A node that crashed or closed may join again under the same id. */
  join(nodeId: NodeId): Transport;
  /**
   * The node is gone at once, without a goodbye: what it sent but has not arrived is lost, requests to it end as
   * `unreachable`, its own transport is dead (requests `aborted`, publishes vanish).
   */
  crash(nodeId: NodeId): void;
  /** Only nodes of one group reach each other; nodes in no group reach nobody. Null: everybody reaches everybody. */
  partition(groups: readonly (readonly NodeId[])[] | null): void;
  /** Nodes that have joined and not left, sorted. */
  nodes(): readonly NodeId[];
}

export function createMemoryHub(_options: MemoryHubOptions): MemoryHub {
  throw new Error('in work');
}
