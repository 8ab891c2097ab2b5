/**
 * Failover with real processes: how long after a stage node's last sign of life a microbatch is accepted elsewhere, when
 * nodes are killed and stopped again and again in the middle of training.
 * Run: `node bench/failover.ts [--events 30] [--replicas 3] [--seed 1] [--json]`.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createChildGroup } from '../src/cli/child-nodes.ts';
import { type Cluster, prepareCluster } from '../src/cli/cluster.ts';
import { presets } from '../src/model/config.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { defaultOuter, defaultTraining } from '../src/peer/policy.ts';
import { readManifest } from '../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../src/platform/nodejs/installation.ts';
import { table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '30' },
    replicas: { type: 'string', default: '3' },
    seed: { type: 'string', default: '1' },
    json: { type: 'boolean', default: false },
  },
});
const eventsWanted = Number(values.events);
const microbatches = 4;
const stages = 2;

interface Watched {
  /** From the last sign of life to the first of the replacement, one for each microbatch that moved. */
  readonly silentMs: number[];
  readonly codes: Map<string, number>;
  lost: number;
  doubled: number;
  steps: number;
}

const watched: Watched = { silentMs: [], codes: new Map(), lost: 0, doubled: 0, steps: 0 };
const waiting = new Set<() => void>();
const rounds = new Map<string, number>();
/** Nodes that somebody failed over from since the fault began, by node id. */
let givenUp = new Set<string>();
let faulty: string | undefined;
let falseFailovers = 0;

function take(name: string, event: NodeEvent): void {
  if (event.type === 'failover') {
    if (event.node === faulty) {
      watched.silentMs.push(event.silentMs);
      watched.codes.set(event.code, (watched.codes.get(event.code) ?? 0) + 1);
    } else falseFailovers++;
    givenUp.add(event.node);
  }
  if (event.type === 'step') {
    watched.steps++;
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

async function clusterIn(directory: string): Promise<Cluster> {
  const datasetDirectory = packageFile('data', 'state-of-the-union');
  const { hash } = await readManifest(datasetDirectory);
  const model = presets.tiny;
  return prepareCluster({
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
  });
}

/** Stops or kills one replica of the last stage after another while the Drivers train. */
async function run(cluster: Cluster): Promise<void> {
  const group = createChildGroup({ onEvent: take });
  const validators = cluster.nodes.filter((_, index) => index % stages === stages - 1);
  const names = cluster.nodes.map(({ spec }) => spec.name);
  try {
    for (const { spec } of cluster.nodes) group.start(spec);
    await until(() => names.every((name) => rounds.has(name)), 120_000);
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
  await run(await clusterIn(directory));
} finally {
  await rm(directory, { recursive: true, force: true });
}
const sorted = watched.silentMs.sort((a, b) => a - b);
const result = {
  events: sorted.length,
  p50Ms: percentile(sorted, 0.5),
  p95Ms: percentile(sorted, 0.95),
  p99Ms: percentile(sorted, 0.99),
  maxMs: sorted.at(-1) ?? null,
  codes: Object.fromEntries(watched.codes),
  lost: watched.lost,
  doubled: watched.doubled,
  falseFailovers,
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
