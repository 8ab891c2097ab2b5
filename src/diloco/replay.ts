/**
 * Makes recorded steps again from a kept state, to have the states between it and the next ones at hand that memory had
 * no room for. The same process gets the same bits (docs/checkpoints.md), and what it gets is held against the recorded
 * hashes. Local weights and moments come back to what they were. It knows no peers.
 */
import type { Segment } from '../optim/segments.ts';
import type { Batch, StageTrainer } from '../optim/stage-trainer.ts';
import { must } from '../std/assert.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { LocalPlace } from './local-state.ts';
import type { Recorder } from './recording.ts';

export interface ReplayRequest {
  readonly round: number;
  /** A step whose state is kept. */
  readonly from: number;
  /** For each step from there, the batches it had and its rate. */
  readonly steps: readonly { readonly batches: readonly Batch[]; readonly learningRate: number }[];
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
  { round, from, steps }: ReplayRequest,
): Promise<Outcome<void>> {
  const start = recorder.copiesAt(round, from);
  const recorded = new Set(recorder.record(round)?.boundaries.map(({ step }) => step));
  if (!start) return reject('not-kept', `round ${round}, step ${from}`);
  const now = segments.map(({ slabs }) => replayedTensors.map((name) => slabs[name].slice()));
  for (const { slabs, offset, length } of segments)
    for (const name of replayedTensors) slabs[name].set(start[name].subarray(offset, offset + length));
  try {
    let place: LocalPlace = { round, step: from, optimizerSteps: start.optimizerSteps };
    recorder.confirm(place);
    for (const { batches, learningRate } of steps) {
      place = { round, step: place.step + 1, optimizerSteps: place.optimizerSteps + 1 };
      await trainer.step(batches, learningRate, place.optimizerSteps);
      if (recorded.has(place.step) && !recorder.confirm(place))
        return reject('replay-mismatch', `round ${round}, step ${place.step}`);
    }
    return accept(undefined);
  } finally {
    for (const [i, { slabs }] of segments.entries())
      for (const [j, name] of replayedTensors.entries()) slabs[name].set(must(now[i]?.[j], 'its copy'));
  }
}
