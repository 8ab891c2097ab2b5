/**
 * What auditing costs those who train: the same swarm of real processes with no share for audits and with the default one,
 * in turns. Processor time of each node's audit process against its budget, of the node itself for a token trained, and
 * tokens a second; and how many duties an hour of that budget affords. Other load on the machine moves the tokens a second, hardly
 * the processor times. Linux only.
 * Run: `node bench/audit-overhead.ts [--nodes 4] [--preset tiny] [--seconds 60] [--pairs 2] [--share 0.1] [--json]`.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { availableParallelism, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { createChildGroup } from '../src/cli/child-nodes.ts';
import { prepareCluster } from '../src/cli/cluster.ts';
import { presets } from '../src/model/config.ts';
import type { NodeEvent } from '../src/peer/events.ts';
import { defaultOuter, defaultTraining } from '../src/peer/policy.ts';
import { readManifest } from '../src/platform/nodejs/dataset-files.ts';
import { packageFile } from '../src/platform/nodejs/installation.ts';
import { childrenCpuMs, processCpuMs } from './support/process-cpu.ts';

const { values } = parseArgs({
  options: {
    nodes: { type: 'string', default: '4' },
    preset: { type: 'string', default: 'tiny' },
    seconds: { type: 'string', default: '60' },
    pairs: { type: 'string', default: '2' },
    share: { type: 'string', default: '0.1' },
    'inner-steps': { type: 'string', default: '10' },
    batch: { type: 'string', default: '4' },
    json: { type: 'boolean', default: false },
  },
});
const config = presets[values.preset as keyof typeof presets];
const innerSteps = Number(values['inner-steps']);

interface Run {
  readonly share: number;
  readonly seconds: number;
  readonly tokens: number;
  /** Audits done, and what was found. */
  readonly audits: number;
  readonly wrong: readonly string[];
  /** Sums over the nodes. */
  readonly nodesCpuMs: number;
  readonly auditsCpuMs: number;
  /** Of the node that audited most, of one core. */
  readonly auditShareMax: number;
  readonly load: number;
}

const runs: Run[] = [];
for (let pair = 0; pair < Number(values.pairs); pair++)
  for (const share of [0, Number(values.share)]) runs.push(await run(share, pair + 1));
report();
process.exit();

async function run(share: number, seed: number): Promise<Run> {
  const directory = await mkdtemp(join(tmpdir(), 'audit-overhead-'));
  const datasetDirectory = packageFile('data', 'state-of-the-union');
  const { hash } = await readManifest(datasetDirectory);
  const cluster = await prepareCluster({
    directory,
    seed,
    nodes: Number(values.nodes),
    attackers: 0,
    model: config,
    datasetDirectory,
    datasetHash: hash,
    training: { ...defaultTraining(config), innerSteps, batch: Number(values.batch) },
    outer: defaultOuter('int8', 'default', innerSteps),
    heldOutBatches: 0,
    samples: false,
    nodeArgs: ['--audit-share', String(share)],
  });
  let tokens = 0;
  let audits = 0;
  const wrong: string[] = [];
  const training = new Set<string>();
  const begun = Promise.withResolvers<void>();
  const group = createChildGroup({
    onEvent: (name: string, event: NodeEvent) => {
      // The first round compiles graphs and code.
      if (event.type === 'round') training.add(name);
      if (training.size === cluster.nodes.length) begun.resolve();
      if (event.type === 'step') tokens += event.tokens;
      if (event.type !== 'audit') return;
      audits += 1;
      if (event.code !== 'valid') wrong.push(event.code);
    },
    onExit: (name, status) => begun.reject(new Error(`${name} ended with ${status.code}`)),
  });
  try {
    const children = cluster.nodes.map(({ spec }) => group.start(spec));
    await begun.promise;
    const meters = children.map(({ pid }) => meterOf(pid));
    for (const meter of meters) await meter.begin();
    [tokens, audits] = [0, 0];
    const startMs = performance.now();
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(values.seconds)));
    const seconds = (performance.now() - startMs) / 1000;
    const counted = { tokens, audits };
    const spent = await Promise.all(meters.map((meter) => meter.end()));
    const sum = (of: (one: (typeof spent)[number]) => number) => spent.reduce((all, one) => all + of(one), 0);
    return {
      share,
      seconds,
      ...counted,
      wrong,
      nodesCpuMs: sum(({ node }) => node),
      auditsCpuMs: sum(({ audit }) => audit),
      auditShareMax: Math.max(...spent.map(({ audit }) => audit)) / (1000 * seconds),
      load: loadavg()[0]!,
    };
  } finally {
    await group.stopAll();
    await rm(directory, { recursive: true, force: true });
  }
}

/** Of a node and of its audit process, which starts with the first duty. */
function meterOf(pid: number | undefined) {
  let node = 0;
  let audits: ReadonlyMap<number, number> = new Map();
  return {
    begin: async () => {
      node = (await processCpuMs(pid)) ?? Number.NaN;
      audits = await childrenCpuMs(pid);
    },
    end: async () => {
      let audit = 0;
      for (const [child, cpuMs] of await childrenCpuMs(pid)) audit += cpuMs - (audits.get(child) ?? 0);
      return { node: ((await processCpuMs(pid)) ?? Number.NaN) - node, audit };
    },
  };
}

function perOne(sum: number, count: number): number | null {
  return count === 0 ? null : sum / count;
}

function report(): void {
  const of = (share: number) => {
    const some = runs.filter((one) => one.share === share);
    const sum = (field: (one: Run) => number) => some.reduce((all, one) => all + field(one), 0);
    const seconds = sum((one) => one.seconds);
    return {
      tokensPerSecond: sum(({ tokens }) => tokens) / seconds,
      nodeMicrosecondsPerToken: (1000 * sum(({ nodesCpuMs }) => nodesCpuMs)) / sum(({ tokens }) => tokens),
      auditShare: sum(({ auditsCpuMs }) => auditsCpuMs) / (1000 * seconds * Number(values.nodes)),
      auditShareMax: Math.max(...some.map(({ auditShareMax }) => auditShareMax)),
      /** Null while none was finished. */
      cpuMsPerAudit: perOne(
        sum(({ auditsCpuMs }) => auditsCpuMs),
        sum(({ audits }) => audits),
      ),
      audits: sum(({ audits }) => audits),
    };
  };
  const share = Number(values.share);
  const [without, audited] = [of(0), of(share)];
  const { cpuMsPerAudit } = audited;
  const dutiesPerHour = cpuMsPerAudit === null ? null : (share * 3_600_000) / cpuMsPerAudit;
  const result = {
    settings: values,
    cores: availableParallelism(),
    without,
    audited,
    throughput: audited.tokensPerSecond / without.tokensPerSecond,
    nodeCpuPerToken: audited.nodeMicrosecondsPerToken / without.nodeMicrosecondsPerToken,
    dutiesPerHour,
    runs,
  };
  if (values.json) {
    console.log(JSON.stringify(result, null, 2));
    return;
  }
  const percent = (value: number) => `${(100 * value).toFixed(1)}%`;
  console.log(
    `${values.nodes} nodes, ${values.preset}, ${result.cores} cores: audits took ${percent(audited.auditShare)} of a core on each node ` +
      `(at most ${percent(audited.auditShareMax)}, budget ${percent(share)}); ` +
      (cpuMsPerAudit === null || dutiesPerHour === null
        ? 'no duty was finished in that time'
        : `${audited.audits} duties, ${cpuMsPerAudit.toFixed(0)} ms each: the budget affords ${dutiesPerHour.toFixed(0)} an hour`),
  );
  console.log(
    `tokens a second ${without.tokensPerSecond.toFixed(0)} without, ${audited.tokensPerSecond.toFixed(0)} with (${result.throughput.toFixed(3)}); ` +
      `processor time of the nodes themselves for a token ${without.nodeMicrosecondsPerToken.toFixed(0)} and ` +
      `${audited.nodeMicrosecondsPerToken.toFixed(0)} µs (${result.nodeCpuPerToken.toFixed(3)})`,
  );
  for (const one of runs)
    console.log(
      `  share ${one.share}: ${(one.tokens / one.seconds).toFixed(0)} tokens/s, ${one.audits} audits${one.wrong.length > 0 ? `, not valid: ${one.wrong.join(', ')}` : ''}, load ${one.load.toFixed(1)}`,
    );
}
