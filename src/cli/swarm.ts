/** `swarm`: a network of processes on this machine, headless, for a number of rounds, and a report of what it did. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import type { AggregatorName } from '../diloco/aggregation/rules.ts';
import type { CodecName } from '../diloco/compression/codec.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import { presetConfig, presets } from '../model/config.ts';
import { defaultLedger, defaultOuter, demoInnerSteps, type TrainingPolicy } from '../peer/policy.ts';
import { readManifest } from '../platform/nodejs/dataset-files.ts';
import { toHex } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { auditedLedger, auditedShare } from './audited-ledger.ts';
import { createChildGroup, describeExit } from './child-nodes.ts';
import { type Cluster, type ClusterOptions, prepareCluster } from './cluster.ts';
import { action, type CommandResult, type CommandRun, defineCommand } from './command.ts';
import { datasetFor } from './dataset-choice.ts';
import { UsageError } from './errors.ts';
import { decimal, integer, oneOf } from './parse.ts';
import { formatBytes, formatCount } from './progress.ts';
import {
  type AttackName,
  auditShareOption,
  type CheatName,
  cheatOptions,
  clusterOptions,
  outerOptions,
  pipelineOptions,
  tokenPriceOption,
} from './shared-options.ts';
import { createSwarmRecorder, type RoundReport, type SwarmReport } from './swarm-report.ts';
import { chooseTraining } from './training-choice.ts';

export interface SwarmOptions {
  readonly nodes?: number;
  readonly stages: number;
  readonly replicas?: number;
  readonly microbatches: number;
  readonly activations: TrainingPolicy['activations'];
  readonly rounds: number;
  readonly innerSteps: number;
  readonly preset: keyof typeof presets;
  readonly aggregator: AggregatorName;
  readonly compression: CodecName;
  readonly attackers: number;
  readonly attack: AttackName;
  readonly attackFactor?: number;
  readonly cheaters?: number;
  readonly cheat?: CheatName;
  readonly cheatFrom?: number;
  readonly auditShare?: number;
  readonly tokenPrice?: number;
  readonly seed: number;
  readonly dataset?: string;
  readonly batch?: number;
  readonly learningRate?: number;
  readonly totalSteps?: number;
  readonly outerLearningRate?: number;
  readonly outerMomentum?: number;
  readonly heldOutBatches: number;
  readonly keep?: string;
}

export function register(program: Command): void {
  const command = defineCommand(program, {
    name: 'swarm',
    summary: 'several nodes on this machine for some rounds, and a report',
    description:
      'Starts a network of node processes on loopback, trains for a number of rounds and reports losses, contributions, ' +
      'bytes and state hashes, and balances, supply and who was punished on the ledger. Some nodes may be hostile.',
    examples: [
      ['swarm --nodes 4 --rounds 10', 'four honest nodes'],
      [
        'swarm --nodes 5 --attackers 1 --attack sign-flip',
        'one of five sends its contribution backwards, ten times',
      ],
      ['swarm --nodes 5 --attackers 1 --attack sign-flip --aggregator mean', 'the same without a defence'],
      [
        'swarm --nodes 5 --cheaters 1 --cheat idle --rounds 20',
        'one of five claims work that it does not do',
      ],
      ['swarm --stages 2 --replicas 2', 'a model cut in two, each half on two nodes'],
      [
        'swarm --stages 2 --replicas 3 --cheaters 1 --cheat garbage-onward --rounds 20',
        'a stage that updates itself and sends garbage to its neighbours',
      ],
    ],
  });
  const cluster = cheatOptions(pipelineOptions(clusterOptions(outerOptions(command), 63)), 63);
  optimizerOptions(runOptions(tokenPriceOption(auditShareOption(cluster))))
    .option(
      '--held-out-batches <count>',
      'held-out batches evaluated after each round',
      integer('--held-out-batches', { min: 0, max: 4096 }),
      16,
    )
    .option('--keep <folder>', 'keep manifest, keys, snapshots and logs here')
    .action(action<SwarmOptions>(swarm));
}

function runOptions(command: Command): Command {
  const names = Object.keys(presets) as (keyof typeof presets)[];
  return command
    .option('--nodes <count>', 'processes (default: 4)', integer('--nodes', { min: 1, max: 64 }))
    .option('--rounds <count>', 'rounds to close', integer('--rounds', { min: 1, max: 1_000_000 }), 10)
    .option(
      '--inner-steps <count>',
      'H: optimizer steps between two exchanges',
      integer('--inner-steps', { min: 1, max: 1_000_000 }),
      demoInnerSteps,
    )
    .option('--preset <name>', `model: ${names.join(', ')}`, oneOf('preset', names), 'tiny')
    .option(
      '--attack-factor <number>',
      'strength of the attack (default: the attack’s own)',
      decimal('--attack-factor'),
    )
    .option('--dataset <folder>', 'dataset to train on (default: the one shipped)')
    .option(
      '--batch <sequences>',
      'sequences of a node’s batch (default: the preset’s)',
      integer('--batch', { min: 1, max: 4096 }),
    );
}

/** Of the inner and the outer step. */
function optimizerOptions(command: Command): Command {
  return command
    .option(
      '--learning-rate <rate>',
      'peak inner learning rate',
      decimal('--learning-rate', { min: 1e-12, max: 1e3 }),
    )
    .option(
      '--total-steps <count>',
      'inner steps over which the rate decays (default: all of the run)',
      integer('--total-steps', { min: 1 }),
    )
    .option(
      '--outer-learning-rate <rate>',
      'of the outer step',
      decimal('--outer-learning-rate', { min: 1e-12, max: 1e3 }),
    )
    .option(
      '--outer-momentum <number>',
      'of the outer step',
      decimal('--outer-momentum', { min: 0, max: 0.999 }),
    );
}

/** Processes that the options ask for: `--nodes`, or so many replicas of each stage. */
export function nodeCount({
  nodes,
  stages,
  replicas,
}: Pick<SwarmOptions, 'nodes' | 'stages' | 'replicas'>): number {
  if (nodes !== undefined && replicas !== undefined)
    throw new UsageError('bad-options', 'either --nodes or --replicas, not both');
  const count = replicas === undefined ? (nodes ?? Math.max(defaultNodes, stages)) : stages * replicas;
  if (count > nodesMax) throw new UsageError('bad-options', `${count} processes; at most ${nodesMax}`);
  if (count < stages) throw new UsageError('bad-options', `${stages} stages need at least as many nodes`);
  return count;
}

function cheatOf({ cheaters = 0, cheat, cheatFrom = 0 }: SwarmOptions): ClusterOptions['cheat'] {
  return cheaters > 0 && cheat ? { name: cheat, fromRound: cheatFrom } : undefined;
}

function ledgerOf(options: SwarmOptions): LedgerPolicy {
  const { innerSteps, stages, tokenPrice } = options;
  const policy = cheatOf(options) ? auditedLedger(innerSteps, stages) : defaultLedger(innerSteps, stages);
  return tokenPrice === undefined ? policy : { ...policy, tokenPrice };
}

/** How many of the nodes, the last ones, are hostile. Throws UsageError where too few honest ones are left. */
function hostileCount(options: SwarmOptions, nodes: number): number {
  const { attackers, cheaters = 0, stages } = options;
  if (attackers > 0 && cheaters > 0)
    throw new UsageError('bad-attackers', 'either --attackers or --cheaters, not both');
  const hostile = attackers + cheaters;
  if (hostile >= nodes)
    throw new UsageError(
      'bad-attackers',
      `${hostile} of ${nodes} nodes cannot be hostile: one must be honest`,
    );
  // The last nodes are the hostile ones, and node i holds stage i mod S.
  if (nodes - hostile < stages)
    throw new UsageError(
      'bad-attackers',
      `${hostile} hostile of ${nodes} nodes leave a stage without an honest one`,
    );
  return hostile;
}

const defaultNodes = 4;
const nodesMax = 64;

/** The cluster that the options ask for, ready to be started. */
export async function clusterOf(
  options: SwarmOptions,
  directory: string,
  samples: boolean,
): Promise<Cluster> {
  const nodes = nodeCount(options);
  const attackers = hostileCount(options, nodes);
  const model = presetConfig(options.preset);
  if (options.stages > model.layers)
    throw new UsageError(
      'bad-stages',
      `--stages is at most ${model.layers}, the layers of ${options.preset}, not ${options.stages}`,
    );
  const datasetDirectory = await datasetFor(model.vocabulary, options.dataset);
  const { hash } = await readManifest(datasetDirectory);
  const cheat = cheatOf(options);
  const auditShare = options.auditShare ?? (cheat && auditedShare);
  const outer = defaultOuter(options.compression, options.aggregator, options.innerSteps);
  return prepareCluster({
    directory,
    seed: options.seed,
    nodes,
    attackers,
    ...(cheat && { cheat }),
    ledger: ledgerOf(options),
    ...(auditShare !== undefined && { nodeArgs: ['--audit-share', String(auditShare)] }),
    ...(options.attackers > 0 && {
      attack: {
        name: options.attack,
        ...(options.attackFactor !== undefined && { factor: options.attackFactor }),
      },
    }),
    model,
    datasetDirectory,
    datasetHash: hash,
    training: chooseTraining(model, {
      ...options,
      // One replica of each stage trains as one process does.
      averages: nodes > options.stages,
      totalSteps: options.totalSteps ?? options.rounds * options.innerSteps,
    }),
    outer: {
      ...outer,
      learningRate: options.outerLearningRate ?? outer.learningRate,
      momentum: options.outerMomentum ?? outer.momentum,
    },
    rounds: options.rounds,
    heldOutBatches: options.heldOutBatches,
    samples,
  });
}

async function swarm(options: SwarmOptions, run: CommandRun): Promise<CommandResult> {
  const directory = options.keep ?? (await mkdtemp(join(tmpdir(), 'neuroshard-swarm-')));
  try {
    const cluster = await clusterOf(options, directory, false);
    return result(options, cluster, await runSwarm(options, cluster, run));
  } finally {
    if (options.keep === undefined) await rm(directory, { recursive: true, force: true });
  }
}

/** Runs the nodes until every honest one has closed the last round. */
async function runSwarm(options: SwarmOptions, cluster: Cluster, run: CommandRun): Promise<SwarmReport> {
  const honest = cluster.nodes.filter((node) => !node.hostile);
  const parameters = new Map<number, number>();
  const recorder = createSwarmRecorder({
    nodes: cluster.nodes.map(({ spec, nodeId, hostile }, index) => ({
      name: spec.name,
      nodeId,
      hostile,
      stage: index % options.stages,
    })),
    parameters: () => [...parameters.values()].reduce((sum, count) => sum + count, 0),
    innerSteps: options.innerSteps,
  });
  const stageOf = (name: string) =>
    cluster.nodes.findIndex((node) => node.spec.name === name) % options.stages;
  const bar = run.progress({ label: 'rounds', total: options.rounds });
  const finished = new Set<string>();
  let settle: { done: () => void; fail: (error: unknown) => void } | undefined;
  const over = new Promise<void>((resolve, reject) => (settle = { done: resolve, fail: reject }));
  over.catch(() => {});
  const group = createChildGroup({
    onEvent: (name, event) => {
      if (event.type === 'started') parameters.set(stageOf(name), event.parameters);
      recorder.record(name, event, Date.now());
      if (event.type === 'round')
        bar.update(recorder.closedByAll() + 1, describeRound(recorder.rounds().at(-1)));
      if (event.type === 'warning') run.log(`${name}: ${event.code}: ${event.detail}`);
      if (event.type !== 'finished') return;
      finished.add(name);
      if (honest.every((node) => finished.has(node.spec.name))) settle!.done();
    },
    onExit: (name, status) => {
      const wasHonest = honest.some((node) => node.spec.name === name);
      if (wasHonest && !finished.has(name))
        settle!.fail(new CodedError('node-failed', `${name}: ${describeExit(status)}`));
    },
  });
  const onAbort = () => settle!.fail(run.signal.reason);
  run.signal.addEventListener('abort', onAbort, { once: true });
  try {
    for (const node of cluster.nodes) group.start(node.spec);
    await over;
  } finally {
    run.signal.removeEventListener('abort', onAbort);
    await group.stopAll();
    bar.end(describeRound(recorder.rounds().at(-1)));
  }
  return recorder.report();
}

function describeRound(report: RoundReport | undefined): string {
  return report?.heldOutLoss == null ? '' : `held-out loss ${report.heldOutLoss.toFixed(4)}`;
}

function result(options: SwarmOptions, cluster: Cluster, report: SwarmReport): CommandResult {
  const { stages, microbatches, activations } = options;
  const { innerSteps, rounds, preset, aggregator, compression, attackers, cheaters, seed } = options;
  const attack = attackers > 0 ? { attack: options.attack } : {};
  const cheat = cheatOf(options);
  const nodes = cluster.nodes.length;
  const pipeline = stages > 1 ? { stages, activations } : {};
  const settings = {
    nodes,
    ...pipeline,
    microbatches,
    rounds,
    innerSteps,
    preset,
    aggregator,
    compression,
    attackers,
    ...attack,
    ...(cheat && { cheaters, cheat: cheat.name, cheatFrom: cheat.fromRound }),
    seed,
  };
  const json = { settings, networkId: toHex(cluster.network.networkId), ...report, rounds: report.rounds };
  const lines = report.rounds.map((one) => {
    const hashes = new Set(Object.values(one.stateHashes));
    const agreed = one.statesAgree;
    const rejected = one.rejected.map(({ node, code }) => `${node} (${code})`).join(', ');
    const sent =
      Object.values(one.bytesSent).reduce((a, b) => a + b, 0) /
      Math.max(1, Object.keys(one.bytesSent).length);
    return [
      `round ${String(one.round).padStart(3)}`,
      `train ${one.trainingLoss?.toFixed(4) ?? '-'}`,
      `held-out ${one.heldOutLoss?.toFixed(4) ?? '-'}`,
      `${one.contributions.length} accepted`,
      rejected ? `rejected ${rejected}` : 'none rejected',
      `${formatBytes(Math.round(sent))}/node`,
      agreed
        ? `state ${[...hashes].map((hash) => hash.slice(0, 12)).join(' ')}`
        : `STATES DIFFER (${hashes.size})`,
      `${(one.wallMs / 1000).toFixed(1)} s`,
    ].join('  ');
  });
  const summary = [
    `held-out loss ${report.initialHeldOutLoss?.toFixed(4) ?? '-'} -> ${report.finalHeldOutLoss?.toFixed(4) ?? '-'}`,
    `${formatCount(report.tokens)} tokens, ${Math.round(report.tokensPerSecond)} tokens/s`,
    `${formatBytes(Math.round(report.bytesPerNodePerInnerStep))} sent per node and inner step, ${formatCount(Math.round(report.communicationReduction))}x less than fp32 all-reduce`,
    report.stateHashesAgree
      ? 'all honest nodes stood on the same state after every round'
      : 'STATE HASHES DIFFERED',
    ...describeLedger(report),
  ];
  return { json, text: [...lines, ...summary].join('\n'), failed: !report.stateHashesAgree };
}

function describeLedger({ slashed, refusedProofs, supply, stateRootsAgree }: SwarmReport): string[] {
  return [
    `supply ${formatNeuro(BigInt(supply))} NEURO${stateRootsAgree ? ', one state root on all honest nodes' : ''}`,
    ...slashed.map(
      ({ node, reason, height, amount, proofs }) =>
        `${node} lost ${formatNeuro(BigInt(amount))} NEURO in block ${height}, after ${proofs} proofs: ${reason}`,
    ),
    ...refusedProofs.map(({ node, code, times }) => `proofs of ${node} refused ${times} times: ${code}`),
  ];
}
