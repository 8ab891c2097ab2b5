/** `demo`: four node processes on this machine learn together until Ctrl-C, and a live view shows how. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { demoInnerSteps } from '../peer/policy.ts';
import { CodedError } from '../std/outcome.ts';
import { createChildGroup, describeExit } from './child-nodes.ts';
import { action, type CommandResult, type CommandRun, defineCommand } from './command.ts';
import { InterruptedError } from './errors.ts';
import { openLiveScreen } from './live-screen.ts';
import { integer } from './parse.ts';
import { clusterOptions, pipelineOptions, tokenPriceOption } from './shared-options.ts';
import { clusterOf, type SwarmOptions } from './swarm.ts';

interface DemoOptions {
  readonly nodes?: number;
  readonly stages: number;
  readonly replicas?: number;
  readonly microbatches: number;
  readonly activations: SwarmOptions['activations'];
  readonly attackers: number;
  readonly attack: SwarmOptions['attack'];
  readonly rounds?: number;
  readonly seed: number;
  readonly tokenPrice?: number;
}

/** Rounds after which the learning rate has decayed to its floor: a demo is watched for some minutes. */
const scheduleRounds = 60;

export function register(program: Command): void {
  const command = defineCommand(program, {
    name: 'demo',
    summary: 'watch four nodes on this machine learn together',
    description:
      'Starts four node processes on loopback that train the tiny model on the shipped text, and shows what each is ' +
      'doing, the held-out loss after every round and a sample of what the model writes. Ctrl-C stops all of them.',
    examples: [
      ['demo', 'until Ctrl-C'],
      ['demo --stages 2 --replicas 2', 'a model cut in two, each half on two nodes'],
      ['demo --nodes 5 --attackers 1 --rounds 10', 'with a hostile node among five, for ten rounds'],
    ],
  });
  tokenPriceOption(pipelineOptions(clusterOptions(command, 15)))
    .option('--nodes <count>', 'processes (default: 4)', integer('--nodes', { min: 1, max: 16 }))
    .option(
      '--rounds <count>',
      'stop after so many rounds (default: until Ctrl-C)',
      integer('--rounds', { min: 1 }),
    )
    .action(action<DemoOptions>(demo));
}

async function demo(options: DemoOptions, run: CommandRun): Promise<CommandResult | undefined> {
  const directory = await mkdtemp(join(tmpdir(), 'neuroshard-demo-'));
  try {
    return await watchCluster(options, directory, run);
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

const unlimited = 1_000_000;

async function watchCluster(
  options: DemoOptions,
  directory: string,
  run: CommandRun,
): Promise<CommandResult | undefined> {
  const rounds = options.rounds ?? unlimited;
  const cluster = await clusterOf(
    {
      ...options,
      rounds,
      innerSteps: demoInnerSteps,
      preset: 'tiny',
      aggregator: 'default',
      compression: 'int8',
      totalSteps: scheduleRounds * demoInnerSteps,
      heldOutBatches: 8,
    },
    directory,
    true,
  );
  const screen = openLiveScreen(run.screen, {
    title: titleOf(options, cluster.nodes.length),
    nodes: cluster.nodes.map(({ spec, hostile }) => ({
      name: spec.name,
      role: hostile ? 'hostile' : 'honest',
    })),
    footer: 'Ctrl-C stops all nodes',
  });
  const honest = new Set(cluster.nodes.filter((node) => !node.hostile).map((node) => node.spec.name));
  const finished = new Set<string>();
  let end: { resolve: () => void; reject: (error: unknown) => void } | undefined;
  const over = new Promise<void>((resolve, reject) => (end = { resolve, reject }));
  over.catch(() => {});
  const group = createChildGroup({
    onEvent: (name, event) => {
      screen.event(name, event);
      if (event.type === 'finished' && honest.has(name)) finished.add(name);
      if (finished.size === honest.size) end!.resolve();
    },
    onExit: (name, status) => {
      screen.exit(name, describeExit(status));
      if (group.running().length === 0)
        end!.reject(new CodedError('node-failed', `${name}: ${describeExit(status)}`));
    },
  });
  const interrupted = () => end!.reject(run.signal.reason);
  run.signal.addEventListener('abort', interrupted, { once: true });
  try {
    for (const node of cluster.nodes) group.start(node.spec);
    await over;
  } catch (error) {
    // Ctrl-C is how a demo ends.
    if (!(error instanceof InterruptedError)) throw error;
  } finally {
    run.signal.removeEventListener('abort', interrupted);
    await group.stopAll();
    screen.close();
  }
  const losses = [...screen.view.heldOutLosses.entries()].map(([round, heldOutLoss]) => ({
    round,
    heldOutLoss,
  }));
  return run.json ? { json: { nodes: cluster.nodes.length, heldOutLosses: losses }, text: '' } : undefined;
}

function titleOf({ stages }: DemoOptions, nodes: number): string {
  const cut = stages > 1 ? ` cut into ${stages} stages` : '';
  return `${nodes} nodes train one model${cut} together`;
}
