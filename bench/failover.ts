/**
 * Failover with real processes: how long after a stage node's last sign of life a microbatch is accepted elsewhere, when
 * nodes are killed and stopped again and again in the middle of training; and how often one is given up for nothing. With
 * `--rtt`, `--loss` or `--mbps` every connection passes a relay with that round trip, share of lost segments and rate.
 * Run: `node bench/failover.ts [--events 30] [--replicas 3] [--seed 1] [--quiet-seconds 0] [--rtt MS] [--loss SHARE]
 * [--mbps N] [--json]`. First nobody fails for `--quiet-seconds`; with `--events 0` nobody fails at all.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createChildGroup } from '../src/cli/child-nodes.ts';
import { type Cluster, type ClusterOptions, prepareCluster } from '../src/cli/cluster.ts';
import { presets } from '../src/model/config.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { defaultOuter, defaultTraining } from '../src/peer/policy.ts';
import { readManifest } from '../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../src/platform/nodejs/installation.ts';
import { prepareRelayedCluster, type RelayedCluster, type WanLink } from './support/relayed-cluster.ts';
import { table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '30' },
    replicas: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    'quiet-seconds': { type: 'string', default: '0' },
    rtt: { type: 'string' },
    loss: { type: 'string' },
    mbps: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const eventsWanted = Number(values.events);
const microbatches = 4;
const stages = 2;
const isRelayed = [values.rtt, values.loss, values.mbps].some((value) => value !== undefined);
const link: WanLink = {
  rttMs: Number(values.rtt ?? 0),
  loss: Number(values.loss ?? 0),
  ...(values.mbps !== undefined && { bitsPerSecond: 1e6 * Number(values.mbps) }),
};

interface Watched {
  /** From the last sign of life to the first of the replacement, one for each microbatch that moved. */
  readonly silentMs: number[];
  readonly codes: Map<string, number>;
  lost: number;
  doubled: number;
  steps: number;
  /** By Drivers, in steps that they ended. */
  begun: number;
  /** Given up although nobody had stopped or killed it. */
  falseFailovers: number;
  /** The same before every node had closed a round: nobody knows the links then, and processes are still starting. */
  falseAtStart: number;
  begunAtStart: number;
}

const watched: Watched = {
  silentMs: [],
  codes: new Map(),
  lost: 0,
  doubled: 0,
  steps: 0,
  begun: 0,
  falseFailovers: 0,
  falseAtStart: 0,
  begunAtStart: 0,
};
const waiting = new Set<() => void>();
const rounds = new Map<string, number>();
/** Nodes that somebody failed over from since the fault began, by node id. */
let givenUp = new Set<string>();
let faulty: string | undefined;
let hasStarted = false;

function take(name: string, event: NodeEvent): void {
  if (event.type === 'failover') {
    if (event.node === faulty) {
      watched.silentMs.push(event.silentMs);
      watched.codes.set(event.code, (watched.codes.get(event.code) ?? 0) + 1);
    } else if (hasStarted) watched.falseFailovers++;
    else watched.falseAtStart++;
    givenUp.add(event.node);
  }
  if (event.type === 'step') {
    watched.steps++;
    if (event.tokens > 0) watched[hasStarted ? 'begun' : 'begunAtStart'] += microbatches;
    watched.lost += Math.max(0, microbatches - event.microbatches);
    watched.doubled += Math.max(0, event.microbatches - microbatches);
  }
  if (event.type === 'round') rounds.set(name, event.round);
  for (const check of [...waiting]) check();
}

function until(condition: () => boolean, limitMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (held: boolean) => {
      waiting.delete(check);
      clearTimeout(timer);
      resolve(held);
    };
    const check = () => condition() && end(true);
    const timer = setTimeout(() => end(false), limitMs);
    waiting.add(check);
    check();
  });
}

async function clusterIn(directory: string): Promise<Cluster & Partial<RelayedCluster>> {
  const datasetDirectory = packageFile('data', 'state-of-the-union');
  const { hash } = await readManifest(datasetDirectory);
  const model = presets.tiny;
  const options: ClusterOptions = {
    directory,
    seed: Number(values.seed),
    nodes: stages * Number(values.replicas),
    attackers: 0,
    model,
    datasetDirectory,
    datasetHash: hash,
    training: { ...defaultTraining(model), batch: 2, sequence: 64, stages, microbatches, innerSteps: 30 },
    outer: defaultOuter('int8', 'default', 30),
    heldOutBatches: 0,
    samples: false,
    nodeArgs: ['--checkpoint-seconds', '2'],
  };
  return isRelayed ? prepareRelayedCluster(options, link) : prepareCluster(options);
}

/** Stops or kills one replica of the last stage after another while the Drivers train. */
async function run(cluster: Cluster): Promise<void> {
  const group = createChildGroup({ onEvent: take });
  const validators = cluster.nodes.filter((_, index) => index % stages === stages - 1);
  const names = cluster.nodes.map(({ spec }) => spec.name);
  try {
    for (const { spec } of cluster.nodes) group.start(spec);
    if (!(await until(() => names.every((name) => rounds.has(name)), 300_000)))
      throw new Error('no round was closed by all');
    hasStarted = true;
    await until(() => false, 1_000 * Number(values['quiet-seconds']));
    for (let fault = 0; watched.silentMs.length < eventsWanted && fault < 3 * eventsWanted; fault++) {
      const { spec, nodeId } = validators[fault % validators.length]!;
      const child = group.get(spec.name)!;
      givenUp = new Set();
      faulty = nodeId;
      const isKill = fault % 2 === 1;
      if (isKill) await child.kill();
      else process.kill(child.pid!, 'SIGSTOP');
      await until(() => givenUp.has(nodeId), 5_000);
      if (isKill) group.start(spec);
      else process.kill(child.pid!, 'SIGCONT');
      const before = rounds.get(spec.name) ?? -1;
      await until(() => (rounds.get(spec.name) ?? -1) > before, 60_000);
      faulty = undefined;
    }
  } finally {
    await group.stopAll();
  }
}

function percentile(sorted: readonly number[], share: number): number | null {
  return sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? null;
}

const directory = await mkdtemp(join(tmpdir(), 'neuroshard-failover-'));
try {
  const cluster = await clusterIn(directory);
  try {
    await run(cluster);
  } finally {
    await cluster.closeRelays?.();
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}
const sorted = watched.silentMs.sort((a, b) => a - b);
const result = {
  link: isRelayed ? link : null,
  events: sorted.length,
  p50Ms: percentile(sorted, 0.5),
  p95Ms: percentile(sorted, 0.95),
  p99Ms: percentile(sorted, 0.99),
  maxMs: sorted.at(-1) ?? null,
  codes: Object.fromEntries(watched.codes),
  lost: watched.lost,
  doubled: watched.doubled,
  begun: watched.begun,
  falseFailovers: watched.falseFailovers,
  falsePer1000: watched.begun > 0 ? (1_000 * watched.falseFailovers) / watched.begun : null,
  falseAtStart: watched.falseAtStart,
  begunAtStart: watched.begunAtStart,
  steps: watched.steps,
};
if (values.json) console.log(JSON.stringify(result, null, 2));
else
  console.log(
    table(
      ['what', 'measured'],
      Object.entries(result).map(([what, value]) => [what, JSON.stringify(value)]),
    ),
  );
