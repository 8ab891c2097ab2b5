/**
 * A cluster of real node processes for end-to-end tests: small batches so that a round takes about a second, every
 * event kept, and waiting for conditions instead of for time.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LinkRelay } from '../../bench/support/link-relay.ts';
import { prepareRelayedCluster, type WanLink } from '../../bench/support/relayed-cluster.ts';
import {
  type ChildGroup,
  type ChildSpec,
  createChildGroup,
  describeExit,
} from '../../src/cli/child-nodes.ts';
import {
  type Cluster,
  type ClusterNode,
  type ClusterOptions,
  prepareCluster,
} from '../../src/cli/cluster.ts';
import type { AggregatorName } from '../../src/diloco/aggregation/rules.ts';
import type { CodecName } from '../../src/diloco/compression/codec.ts';
import { presets } from '../../src/model/config.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import { defaultOuter, defaultTraining, type TrainingPolicy } from '../../src/peer/policy.ts';
import { readManifest } from '../../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../../src/platform/nodejs/installation.ts';

export interface HarnessOptions {
  readonly nodes: number;
  readonly attackers?: number;
  readonly attack?: { readonly name: string; readonly factor?: number };
  /** Of the attackers, in place of an attack. */
  readonly cheat?: ClusterOptions['cheat'];
  readonly ledger?: ClusterOptions['ledger'];
  readonly model?: ClusterOptions['model'];
  readonly aggregator?: AggregatorName;
  readonly compression?: CodecName;
  readonly rounds?: number;
  readonly innerSteps?: number;
  readonly training?: Partial<TrainingPolicy>;
  readonly nodeArgs?: readonly string[];
  readonly seed?: number;
  /** All connections between nodes are such links; without it loopback. */
  readonly link?: WanLink;
  /** Of the first node's API. */
  readonly apiPort?: number;
  /** Makes the dataset in the folder given; without it the shipped one. */
  readonly buildDataset?: (folder: string) => Promise<unknown>;
}

type RoundEvent = NodeEvent & { type: 'round' };

export interface Harness {
  readonly cluster: Cluster;
  readonly group: ChildGroup;
  /** One before each node, in their order; none without a `link`. */
  readonly relays: readonly LinkRelay[];
  events(name: string): readonly NodeEvent[];
  rounds(name: string): readonly RoundEvent[];
  /** Resolves as soon as the condition holds; fails with what the nodes did last when it does not in time. */
  until(what: string, condition: () => boolean, limitMs?: number): Promise<void>;
  startAll(): void;
  start(name: string): void;
  /** A node beside the cluster's own; its events are kept under its name. */
  startSpec(spec: ChildSpec): void;
  close(): Promise<void>;
}

export async function createHarness(options: HarnessOptions): Promise<Harness> {
  const innerSteps = options.innerSteps ?? 4;
  const directory = await mkdtemp(join(tmpdir(), 'neuroshard-e2e-'));
  const custom = options.buildDataset && join(directory, 'dataset');
  if (custom) await options.buildDataset?.(custom);
  const datasetDirectory = custom ?? packageFile('data', 'state-of-the-union');
  const { hash } = await readManifest(datasetDirectory);
  const clusterOptions: ClusterOptions = {
    directory,
    seed: options.seed ?? 7,
    nodes: options.nodes,
    attackers: options.attackers ?? 0,
    ...(options.attack && { attack: options.attack }),
    ...(options.cheat && { cheat: options.cheat }),
    ...(options.ledger && { ledger: options.ledger }),
    model: options.model ?? presets.tiny,
    datasetDirectory,
    datasetHash: hash,
    training: {
      ...defaultTraining(options.model ?? presets.tiny),
      innerSteps,
      batch: 2,
      sequence: 32,
      warmupSteps: 4,
      ...options.training,
    },
    outer: defaultOuter(options.compression ?? 'int8', options.aggregator ?? 'default', innerSteps),
    ...(options.rounds !== undefined && { rounds: options.rounds }),
    heldOutBatches: 2,
    samples: false,
    ...(options.apiPort !== undefined && { apiPort: options.apiPort }),
    nodeArgs: options.nodeArgs ?? [],
  };
  const relayed = options.link && (await prepareRelayedCluster(clusterOptions, options.link));
  const cluster = relayed ?? (await prepareCluster(clusterOptions));
  const events = new Map<string, NodeEvent[]>(cluster.nodes.map(({ spec }) => [spec.name, []]));
  const waiting = new Set<() => void>();
  const notes: string[] = [];
  const group = createChildGroup({
    onEvent: (name, event) => {
      events.get(name)?.push(event);
      if (event.type === 'warning') notes.push(`${name}: ${event.code}: ${event.detail}`);
      for (const check of [...waiting]) check();
    },
    onExit: (name, status) => {
      notes.push(`${name}: ${describeExit(status)}`);
      for (const check of [...waiting]) check();
    },
  });
  const specOf = (name: string): ClusterNode => {
    const node = cluster.nodes.find((one) => one.spec.name === name);
    assert.ok(node, `no node ${name}`);
    return node;
  };
  const describe = () =>
    [...events]
      .map(([name, all]) => `${name}: ${JSON.stringify(all.at(-1))}`)
      .concat(notes.slice(-10))
      .join('\n');
  return {
    cluster,
    group,
    relays: relayed?.relays ?? [],
    events: (name) => events.get(name) ?? [],
    rounds: (name) => (events.get(name) ?? []).filter((event): event is RoundEvent => event.type === 'round'),
    until: (what, condition, limitMs = 90_000) =>
      new Promise((resolve, reject) => {
        const check = () => {
          if (!condition()) return;
          waiting.delete(check);
          clearTimeout(timer);
          resolve();
        };
        const timer = setTimeout(() => {
          waiting.delete(check);
          reject(new Error(`not within ${limitMs} ms: ${what}\n${describe()}`));
        }, limitMs);
        waiting.add(check);
        check();
      }),
    startAll: () => {
      for (const { spec } of cluster.nodes) group.start(spec);
    },
    start: (name) => void group.start(specOf(name).spec),
    startSpec: (spec) => {
      events.set(spec.name, []);
      group.start(spec);
    },
    close: async () => {
      await group.stopAll();
      await relayed?.closeRelays();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** State hash after each round, by round; fails when two nodes (of one stage) differ anywhere. */
export function agreedHashes(harness: Harness, names: readonly string[]): Map<number, string> {
  const hashes = new Map<number, string>();
  for (const name of names) {
    for (const { round, stateHash } of harness.rounds(name)) {
      const known = hashes.get(round);
      assert.ok(known === undefined || known === stateHash, `${name} differs after round ${round}`);
      hashes.set(round, stateHash);
    }
  }
  return hashes;
}
