/**
 * Training without a network: one process takes, at each step, the batches that all members of a network would train
 * on in that step, and averages their gradients. What a swarm is compared with, and what one machine alone runs. It
 * knows no files and no transport.
 */
import type { StageReplica } from '../diloco/replica.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { globalBatches, heldOutBatches } from '../genesis/sampler.ts';
import { learningRate } from '../optim/schedule.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import type { NetworkManifest } from './network.ts';

export interface BaselineOptions {
  /** Its members are the nodes whose batches are taken; its seed and training policy are the swarm's. */
  readonly network: NetworkManifest;
  readonly dataset: Dataset;
  readonly replica: StageReplica;
  readonly clock: Clock;
  /** Optimizer steps. */
  readonly steps: number;
  /** Held-out batches evaluated at the start and after every `innerSteps` steps; 0: none. */
  readonly heldOutBatches: number;
  readonly onStep?: (step: number, loss: number) => void;
  readonly onPoint?: (point: CurvePoint) => void;
}

/** Where training stood after so many steps. */
export interface CurvePoint {
  readonly step: number;
  readonly tokens: number;
  /** Mean over the steps since the point before, nats per token. */
  readonly trainingLoss: number;
  /** Of the weights after this step; null where they were not evaluated. */
  readonly heldOutLoss: number | null;
}

export interface BaselineReport {
  readonly steps: number;
  readonly tokens: number;
  readonly initialHeldOutLoss: number | null;
  readonly finalHeldOutLoss: number | null;
  /** Training loss of every step. */
  readonly losses: readonly number[];
  readonly curve: readonly CurvePoint[];
  /** Of the time spent in steps; evaluation is not counted. */
  readonly tokensPerSecond: number;
  /** Whether it was asked to stop before its last step. */
  readonly interrupted: boolean;
}

/** Trains from the network's initial weights; an abort ends it after the step under way, with the report so far. */
export async function trainBaseline(options: BaselineOptions, signal: AbortSignal): Promise<BaselineReport> {
  const { network, clock, steps } = options;
  const { innerSteps, batch, sequence, microbatches } = network.training;
  const tokensPerStep = network.members.length * microbatches * batch * sequence;
  const held = await heldOutOf(options);
  const initialHeldOutLoss = await evaluate(options, held);
  const curve: CurvePoint[] = [];
  const all: number[] = [];
  let losses: number[] = [];
  let step = 0;
  let trainingMs = 0;
  while (step < steps && !signal.aborted) {
    const startedMs = clock.nowMs();
    const loss = await oneStep(options, step);
    trainingMs += clock.nowMs() - startedMs;
    step += 1;
    losses.push(loss);
    all.push(loss);
    options.onStep?.(step, loss);
    // Asked to stop: the report is wanted now, and an evaluation may take long.
    const isPoint = step % innerSteps === 0 || step === steps || signal.aborted;
    if (!isPoint) continue;
    const heldOutLoss = signal.aborted ? null : await evaluate(options, held);
    const point = { step, tokens: step * tokensPerStep, trainingLoss: mean(losses), heldOutLoss };
    losses = [];
    curve.push(point);
    options.onPoint?.(point);
  }
  return {
    steps: step,
    tokens: step * tokensPerStep,
    initialHeldOutLoss,
    finalHeldOutLoss:
      curve.findLast((point) => point.heldOutLoss !== null)?.heldOutLoss ?? initialHeldOutLoss,
    losses: all,
    curve,
    tokensPerSecond: (1000 * step * tokensPerStep) / Math.max(1, trainingMs),
    interrupted: step < steps,
  };
}

/** The batches of all members → forward and backward of each → mean gradient → AdamW. Gives the mean loss. */
async function oneStep(options: BaselineOptions, step: number): Promise<number> {
  const { network, dataset, replica } = options;
  const { innerSteps } = network.training;
  const batches = await globalBatches({
    dataset,
    nodeIds: network.members.map((member) => member.nodeId),
    round: Math.floor(step / innerSteps),
    step: step % innerSteps,
    ...network.training,
  });
  const { loss } = await replica.trainStep(batches.map(onlyTokens), learningRate(network.training, step));
  if (Number.isFinite(loss)) return loss;
  throw new CodedError(
    'diverged',
    `the loss is not a number after step ${step + 1}: try a lower learning rate`,
  );
}

/** Without the places that the sampler adds: they need not travel to where the weights live. */
function onlyTokens({ tokens, labels }: Batch): Batch {
  return { tokens, labels };
}

async function heldOutOf({ dataset, network, heldOutBatches: count }: BaselineOptions): Promise<Batch[]> {
  if (count === 0) return [];
  const { batch, sequence } = network.training;
  return (await heldOutBatches(dataset, { batch, sequence, count })).map(onlyTokens);
}

async function evaluate({ replica }: BaselineOptions, held: readonly Batch[]): Promise<number | null> {
  return held.length === 0 ? null : replica.evaluate(held, 'weights');
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
