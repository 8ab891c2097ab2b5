/** `train`: one process trains on the batches that a swarm of N nodes would, for comparison and for one machine alone. */
import { availableParallelism } from 'node:os';
import type { Command } from 'commander';
import { type PresetName, presetConfig, presets } from '../model/config.ts';
import type { BaselineReport, CurvePoint } from '../peer/baseline.ts';
import { demoInnerSteps } from '../peer/policy.ts';
import { action, type CommandResult, type CommandRun, defineCommand } from './command.ts';
import { UsageError } from './errors.ts';
import { decimal, integer, oneOf } from './parse.ts';
import { formatCount, formatDuration } from './progress.ts';
import { microbatchOption } from './shared-options.ts';
import type { AloneOptions, AloneWatcher } from './train-run.ts';

interface TrainOptions extends Omit<AloneOptions, 'model' | 'stepsDefault'> {
  readonly preset: PresetName;
}

/** As many as `swarm` makes without options. */
const defaultSteps = 10 * demoInnerSteps;
const stepsMax = 1_000_000_000;

export function register(program: Command): void {
  const names = Object.keys(presets) as PresetName[];
  const providers = ['cpu', 'webgpu', 'cuda'] as const;
  const command = defineCommand(program, {
    name: 'train',
    summary: 'train in this one process, without a network',
    description:
      'Trains on exactly the batches that a swarm of --nodes nodes with the same seed would train on, from the same ' +
      'initial weights, with gradients averaged at every step: what a swarm is compared with, and what one machine ' +
      'alone needs. Ctrl-C ends it with the report, and the model, so far.',
    examples: [
      ['train --steps 200', 'the tiny preset on the text that comes with the program'],
      ['train --nodes 1 --tokens 2000000 --out models/tiny', 'alone, and keep the model'],
      ['train --nodes 4 --seed 7 --steps 400 --json', 'beside: swarm --nodes 4 --seed 7 --rounds 20'],
    ],
  });
  microbatchOption(command)
    .option('--nodes <count>', 'nodes of the swarm it is like', integer('--nodes', { min: 1, max: 64 }), 4)
    .option(
      '--steps <count>',
      `optimizer steps (default: ${defaultSteps})`,
      integer('--steps', { min: 1, max: stepsMax }),
    )
    .option('--tokens <count>', 'train on at least this many tokens instead', integer('--tokens', { min: 1 }))
    .option('--preset <name>', `model: ${names.join(', ')}`, oneOf('preset', names), 'tiny')
    .option('--seed <number>', 'initial weights and batches follow from it', integer('--seed', { min: 0 }), 1)
    .option('--dataset <place>', 'folder or http(s) address of the dataset (default: the one shipped)')
    .option(
      '--batch <sequences>',
      "sequences of one node's batch (default: the preset's)",
      integer('--batch', { min: 1, max: 4096 }),
    )
    .option(
      '--learning-rate <rate>',
      "peak learning rate (default: the preset's)",
      decimal('--learning-rate', { min: 1e-12, max: 1e3 }),
    )
    .option(
      '--inner-steps <count>',
      "H of the swarm: steps between two evaluations (the swarm's rounds)",
      integer('--inner-steps', { min: 1, max: 1_000_000 }),
      demoInnerSteps,
    )
    .option(
      '--total-steps <count>',
      'steps over which the rate decays (default: all of the run)',
      integer('--total-steps', { min: 1, max: stepsMax }),
    )
    .option(
      '--held-out-batches <count>',
      'held-out batches of an evaluation; 0: none',
      integer('--held-out-batches', { min: 0, max: 4096 }),
      16,
    )
    .option(
      '--provider <provider>',
      `where to compute: ${providers.join(', ')}`,
      oneOf('provider', providers),
      'cpu',
    )
    .option(
      '--threads <count>',
      'threads of the tensor engine',
      integer('--threads', { min: 1, max: 256 }),
      availableParallelism(),
    )
    .option('--out <folder>', 'write the model there: config.json, model.safetensors, tokenizer.json')
    .option('--force', 'replace a model that is already there')
    .action(action<TrainOptions>(train));
}

async function train(options: TrainOptions, run: CommandRun): Promise<CommandResult> {
  if (options.steps !== undefined && options.tokens !== undefined)
    throw new UsageError('bad-options', 'either --steps or --tokens, not both');
  const { trainAlone } = await import('./train-run.ts');
  let bar: ReturnType<CommandRun['progress']> | undefined;
  let note = '';
  const watcher: AloneWatcher = {
    signal: run.signal,
    onStep: (step, total, loss) => {
      bar ??= run.progress({ label: 'training', total, unit: 'steps' });
      bar.update(step, `loss ${loss.toFixed(4)}${note}`);
    },
    onPoint: ({ heldOutLoss }) => {
      if (heldOutLoss !== null) note = `, held-out ${heldOutLoss.toFixed(4)}`;
    },
  };
  const asked = { ...options, model: presetConfig(options.preset), stepsDefault: defaultSteps };
  const trained = await trainAlone(asked, watcher).finally(() => bar?.end(note.slice(2)));
  const { report, settings, parameters, wallMs, notKept } = trained;
  const out = notKept === undefined ? options.out : undefined;
  if (notKept) run.log(`neuroshard: ${notKept.message}`);
  const outError = notKept && { outError: { code: notKept.code, message: notKept.message } };
  return {
    json: {
      settings: { preset: options.preset, ...settings },
      parameters,
      ...report,
      wallMs,
      out: out ?? null,
      ...outError,
    },
    text: describe(report, wallMs, out),
    failed: notKept !== undefined,
    interrupted: report.interrupted,
  };
}

function describe(report: BaselineReport, wallMs: number, out: string | undefined): string {
  const { initialHeldOutLoss: initial, finalHeldOutLoss: final } = report;
  const heldOut = `held-out loss ${initial?.toFixed(4)} -> ${final?.toFixed(4)}`;
  return [
    ...report.curve.map(describePoint),
    ...(initial === null ? [] : [heldOut]),
    `${formatCount(report.tokens)} tokens in ${report.steps} steps, ${Math.round(report.tokensPerSecond)} tokens/s, ${formatDuration(wallMs)}`,
    ...(out === undefined ? [] : [`model in ${out}`]),
  ].join('\n');
}

function describePoint({ step, tokens, trainingLoss, heldOutLoss }: CurvePoint): string {
  const heldOut = heldOutLoss === null ? '' : `  held-out ${heldOutLoss.toFixed(4)}`;
  return `step ${String(step).padStart(5)}  ${formatCount(tokens).padStart(6)} tokens  train ${trainingLoss.toFixed(4)}${heldOut}`;
}
