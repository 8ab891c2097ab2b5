/**
 * Some connected nodes under test, whatever their transport: how they are started and how time passes is hidden here.
 * Also what all parts of the transports' contract share.
 */
import assert from 'node:assert/strict';
import { after, before } from 'node:test';
import type { ScorePolicy } from '../src/net/peer-score.ts';
import type { NodeId, Transport } from '../src/net/transport.ts';
import { accept, type Outcome } from '../src/std/outcome.ts';

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

/** Runs before the first test of the suite that it is called in, and is closed after the last. */
export function clusterOfSuite(
  start: StartCluster,
  ...options: Parameters<StartCluster>
): () => TransportCluster {
  let cluster: TransportCluster | undefined;
  before(async () => {
    cluster = await start(...options);
  });
  after(() => cluster?.close());
  return () => {
    assert.ok(cluster, 'the cluster runs only while tests do');
    return cluster;
  };
}

export const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);
export const never = () => new Promise<never>(() => {});
export const echo = async (_from: NodeId, request: Uint8Array) => accept(request);
