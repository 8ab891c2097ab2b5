/**
 * Makes recorded steps again from a kept state, to have the states between it and the next ones at hand that memory had
 * no room for. The same process gets the same bits (docs/checkpoints.md), and what it gets is held against the recorded
 * hashes. Local weights and moments come back to what they were. It knows no peers.
 */

import type { StageEntry, StageTarget } from '../optim/pipeline-stage.ts';
import type { Segment } from '../optim/segments.ts';
import type { Batch, StageTrainer } from '../optim/stage-trainer.ts';
import { must } from '../std/assert.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { LocalPlace } from './local-state.ts';
import type { Recorder } from './recording.ts';

/** Of a model held whole. */
export interface ReplayedBatches {
  readonly batches: readonly Batch[];
  readonly learningRate: number;
}

/** Of a stage of several: what entered, and what came back, in the order of the sum. */
export interface ReplayedMicrobatches {
  readonly microbatches: readonly {
    readonly entry: StageEntry;
    readonly target: StageTarget;
    /** Steps of the round at whose weights the gradient was made. */
    readonly summedAt: number;
  }[];
  readonly learningRate: number;
  readonly gradientScale: number;
}

export interface ReplayRequest {
  readonly round: number;
  /** A step whose state is kept. */
  readonly from: number;
  /** Those from there on, in the order in which they were made. */
  readonly steps: readonly (ReplayedBatches | ReplayedMicrobatches)[];
}

const replayedTensors = ['weights', 'firstMoments', 'secondMoments'] as const;

/**
 * Afterwards the states of the last interval of the replay are kept. `not-kept` when there is no state to begin from;
 * `replay-mismatch` when a recorded hash is not met: then these are not the steps that were made.
 */
export async function replay(
  recorder: Recorder,
  segments: readonly Segment[],
  trainer: StageTrainer,
  request: ReplayRequest,
): Promise<Outcome<void>> {
  const { round, from, steps } = request;
  const start = recorder.copiesAt(round, from);
  const recorded = new Set(recorder.record(round)?.boundaries.map(({ step }) => step));
  if (!start) return reject('not-kept', `round ${round}, step ${from}`);
  const now = segments.map(({ slabs }) => replayedTensors.map((name) => slabs[name].slice()));
  for (const { slabs, offset, length } of segments)
    for (const name of replayedTensors) slabs[name].set(start[name].subarray(offset, offset + length));
  try {
    let place: LocalPlace = { round, step: from, optimizerSteps: start.optimizerSteps };
    recorder.confirm(place);
    const weights = keepWeights(segments, request);
    for (const step of steps) {
      const made = place.step;
      weights.arrive(made);
      place = { round, step: made + 1, optimizerSteps: place.optimizerSteps + 1 };
      if ('batches' in step) await trainer.step(step.batches, step.learningRate, place.optimizerSteps);
      else if (!(await stageStep(trainer, weights, step, made, place.optimizerSteps)))
        return reject('not-kept', `round ${round}: weights of before step ${from}`);
      if (recorded.has(place.step) && !recorder.confirm(place))
        return reject('replay-mismatch', `round ${round}, step ${place.step}`);
    }
    return accept(undefined);
  } finally {
    for (const [i, { slabs }] of segments.entries())
      for (const [j, name] of replayedTensors.entries()) slabs[name].set(must(now[i]?.[j], 'its copy'));
  }
}

/** Weights of steps that a later one has gradients of: a stage of two Drivers sums for one before the other's step. */
interface WeightsKept {
  /** The weights in place are those after `step` steps of the round. */
  arrive(step: number): void;
  /** Puts those weights in place again; false when they are not known. */
  stand(step: number): boolean;
}

function keepWeights(segments: readonly Segment[], { from, steps }: ReplayRequest): WeightsKept {
  const wanted = new Set(
    steps.flatMap((step, i) => {
      const others =
        'batches' in step ? [] : step.microbatches.filter(({ summedAt }) => summedAt !== from + i);
      return others.length === 0 ? [] : [from + i, ...others.map(({ summedAt }) => summedAt)];
    }),
  );
  const kept = new Map<number, readonly Float32Array[]>();
  let now = from;
  return {
    arrive: (step) => {
      now = step;
      const weights = wanted.has(step) && segments.map(({ slabs }) => slabs.weights.slice());
      if (weights) kept.set(step, weights);
    },
    stand: (step) => {
      if (now === step) return true;
      const weights = kept.get(step);
      for (const [i, { slabs }] of segments.entries())
        if (weights) slabs.weights.set(must(weights[i], 'its weights'));
      if (weights) now = step;
      return weights !== undefined;
    },
  };
}

/** The step of a stage after `made` steps of the round; false when weights that it needs are not known. */
async function stageStep(
  trainer: StageTrainer,
  weights: WeightsKept,
  { microbatches, learningRate, gradientScale }: ReplayedMicrobatches,
  made: number,
  optimizerStep: number,
): Promise<boolean> {
  const sum = trainer.sums.take();
  try {
    for (const { entry, target, summedAt } of microbatches) {
      if (!weights.stand(summedAt)) return false;
      await trainer.backward(entry, target, sum);
    }
    if (!weights.stand(made)) return false;
    trainer.apply(sum, { learningRate, gradientScale, step: optimizerStep });
    return true;
  } finally {
    trainer.sums.give(sum);
  }
}
