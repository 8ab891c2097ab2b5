/** Some connected nodes under test, whatever their transport: how they are started and how time passes is hidden here. */
import type { ScorePolicy } from '../src/net/peer-score.ts';
import type { Transport } from '../src/net/transport.ts';

export interface TransportCluster {
  /** Connected to each other. After a restart the node's new transport is in its place. */
  readonly transports: Transport[];
  /** Lets time pass until the condition holds; fails when it does not. */
  until(condition: () => boolean, what: string): Promise<void>;
  /** Lets so much time pass. */
  pass(ms: number): Promise<void>;
  /** Waits for the promise while time passes. */
  run<T>(promise: Promise<T>): Promise<T>;
  /** Ends node `index`; `restart` starts it again with the same key at the same address. */
  stop(index: number): Promise<void>;
  restart(index: number): Promise<void>;
  close(): Promise<void>;
}

export type StartCluster = (
  count: number,
  scorePolicy?: ScorePolicy,
  /** The nodes keep a directory of who provides what. */
  options?: { readonly directory: boolean },
) => Promise<TransportCluster>;
