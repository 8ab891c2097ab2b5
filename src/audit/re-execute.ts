/**
 * Does an interval of training again from its start state, and says whether the claimed end state is what comes out. On
 * the wasm engine the recomputed state is the same bits everywhere, so all honest auditors find the same. It knows no
 * peers, no ledger and not where states and batches come from.
 */

import { encodeFeedback, takeOut, workToFeedback } from '../diloco/contribution-work.ts';
import type { ReplicaSettings } from '../diloco/local-replica.ts';
import {
  type LocalPlace,
  localStateHash,
  localTensors,
  segmentLeafHashes,
  tensorLeafRange,
} from '../diloco/local-state.ts';
import { cutStages } from '../model/stage-cut.ts';
import { createSegments, flatLength, forEachPiece, type Segment } from '../optim/segments.ts';
import { createStageTrainer, embeddingScratchBytes } from '../optim/stage-trainer.ts';
import type { RowCodec } from '../pipeline/row-codec.ts';
import { assert, must } from '../std/assert.ts';
import type { HashHex } from '../std/hash.ts';
import type { Engine } from '../tensor/engine.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { compareStates } from './compare.ts';
import { makeStageSteps, type StageFinding, type StageStep } from './stage-step.ts';
import type { ClaimedStep } from './steps.ts';
import { type Disagreement, rowToleranceOf, toleranceMax } from './tolerance.ts';

/** One tensor of a state, leaf by leaf (f32 little-endian), as it came from the evidence. */
export type Leaves = readonly Uint8Array[];

export interface ClaimedTensors {
  readonly weights: Leaves;
  readonly firstMoments: Leaves;
  readonly secondMoments: Leaves;
}

export interface ReExecution {
  /** Of the prover, from 0. */
  readonly stage: number;
  /** Where the interval begins. */
  readonly place: LocalPlace;
  readonly start: ClaimedTensors;
  /** What the prover says came out. */
  readonly end: ClaimedTensors;
  /** Leaf hashes of the error feedback, which no inner step changes. */
  readonly feedbackLeaves: Leaves;
  /** Of a whole model from its batches, of a stage of several from the rows that reached it. */
  readonly steps: readonly ClaimedStep[] | readonly StageStep[];
  /** For the last interval of a round that made a contribution: of what, and the hash of its blob. */
  readonly contribution?: {
    readonly base: Leaves;
    readonly errorFeedback: Leaves;
    readonly blobHash: HashHex;
  };
  readonly tolerance: number;
}

/** From a round's end to the next one's start. */
export interface FeedbackRequest {
  readonly stage: number;
  readonly base: Leaves;
  readonly weights: Leaves;
  readonly errorFeedback: Leaves;
}

/** Leaf hashes that the error feedback may have in the round after. */
export interface NextFeedback {
  /** When the round took the contribution in. */
  readonly counted: Leaves;
  /** When it did not: all of it is kept for the next one. */
  readonly leftOut: Leaves;
}

/** `valid`, or why the claim is false. */
export type FindingCode =
  | 'valid'
  /** Nothing was trained at all. */
  | 'no-work'
  /** Other data, other labels, fewer steps, another rate, another start: the steps claimed end elsewhere. */
  | 'update-mismatch'
  /** The weights are right, and what the optimizer would do next is not. */
  | 'moments-mismatch'
  /** A stage sent its neighbours other rows than it had computed. */
  | 'wrong-rows'
  /** A Driver's norm is not that of the gradients; or a stage took a step by one smaller than its own gradient's. */
  | 'wrong-norm'
  /** The list of a stage's steps, or what it says of one of them, is not what a stage could have made. */
  | 'wrong-work'
  /** A neighbour's signature, or the Driver's, under a stage's step is missing or wrong. */
  | 'unsigned-work'
  /** The contribution is not the compression of the audited state. */
  | 'wrong-contribution'
  /** The round's start is not the agreed state. */
  | 'wrong-base'
  /** The round's start does not follow from where the proof before it ended. */
  | 'broken-chain'
  /** Error feedback is not what the round before left, or changed within the round. */
  | 'wrong-feedback'
  /** Round, steps, counts or tokens of the claim and of its states do not go together. */
  | 'wrong-place';

export interface Finding {
  readonly code: FindingCode;
  readonly detail: string;
  /** Of the state that the auditor's engine came to. */
  readonly stateHash: HashHex;
  readonly disagreement: Disagreement;
  /** `StageFinding` of a stage; 0 for a whole model. */
  readonly rows: number;
  readonly norm: number;
}

/** Calls run one after another. */
export interface ReExecutor {
  execute(request: ReExecution): Promise<Finding>;
  nextFeedback(request: FeedbackRequest): Promise<NextFeedback>;
  close(): Promise<void>;
}

/** Everything but the engine: survives a structured clone, so it can be sent to where the engine is. */
export interface ReExecutorSettings extends ReplicaSettings {
  /** How rows travel between stages. */
  readonly activations?: RowCodec;
}

export interface ReExecutorOptions extends ReExecutorSettings {
  readonly engine: Engine;
}

export async function createReExecutor(options: ReExecutorOptions): Promise<ReExecutor> {
  const { engine, config, plan, outer, stages = 1, stageIndex = 0, inner, activations = 'bf16' } = options;
  const stage = must(cutStages(config, stages)[stageIndex], 'stage');
  const segments = createSegments({
    config,
    stage,
    createMemory: createKernelMemory,
    embeddingScratchBytes: embeddingScratchBytes(options.batch, options.sequence, config.width),
  });
  const trainer = await createStageTrainer({ ...options, stage, segments });
  const flat = flatLength(segments);
  const rowElements = options.batch * options.sequence * config.width;
  const stageRules = { codec: activations, rowElements, clip: inner.clip };

  const makeSteps = async ({ steps, place }: ReExecution): Promise<StageFinding> => {
    if (areStageSteps(steps)) return makeStageSteps(trainer, steps, place, stageRules);
    for (const [i, { batches, learningRate }] of steps.entries())
      await trainer.step(batches, learningRate, place.optimizerSteps + i + 1);
    return { rows: 0, norm: 0 };
  };
  const contributes = ({ contribution, end }: ReExecution): boolean => {
    if (!contribution) return true;
    load(segments, 'weights', end.weights);
    load(segments, 'base', contribution.base);
    load(segments, 'errorFeedback', contribution.errorFeedback);
    workToFeedback(segments, outer.compression);
    return encodeFeedback(segments, outer.compression).blobHash === contribution.blobHash;
  };

  return {
    execute: async (request) => {
      const { place, start, steps, end, tolerance } = request;
      for (const name of ['weights', 'firstMoments', 'secondMoments'] as const)
        load(segments, name, start[name]);
      const made = await makeSteps(request);
      const optimizerSteps = place.optimizerSteps + steps.length;
      const step = place.step + steps.length;
      const leaves = localTensors.flatMap((name) =>
        name === 'errorFeedback' ? request.feedbackLeaves : segmentLeafHashes(segments, name, flat),
      );
      const stateHash = localStateHash(plan, { ...place, step, optimizerSteps }, leaves);
      const rates = steps.reduce((sum, { learningRate }) => sum + learningRate, 0);
      const compared = { start, claimed: end, epsilon: inner.epsilon, rates };
      const { disagreement, hasMoved } = compareStates(segments, compared);
      const { update, moments, direction } = disagreement;
      const { rows, norm } = made;
      const found = (code: FindingCode, detail = '') => ({ code, detail, stateHash, disagreement, ...made });
      if (!hasMoved && update > 0) return found('no-work', 'no weight has changed');
      if (update > tolerance) return found('update-mismatch', `${update} of the update's length`);
      if (Math.max(moments, direction) > tolerance)
        return found('moments-mismatch', `${moments}, ${direction}`);
      if (rows > rowToleranceOf(activations)) return found('wrong-rows', `${rows} of their length`);
      if (norm > toleranceMax) return found('wrong-norm', `${norm} of the gradients' length`);
      if (!contributes(request)) return found('wrong-contribution');
      return found('valid');
    },
    nextFeedback: async ({ base, weights, errorFeedback }) => {
      load(segments, 'base', base);
      load(segments, 'weights', weights);
      load(segments, 'errorFeedback', errorFeedback);
      workToFeedback(segments, outer.compression);
      const leftOut = segmentLeafHashes(segments, 'errorFeedback', flat);
      takeOut(segments, outer.compression, encodeFeedback(segments, outer.compression).blob);
      return { leftOut, counted: segmentLeafHashes(segments, 'errorFeedback', flat) };
    },
    close: async () => {
      await trainer.close();
      await engine.close();
    },
  };
}

function areStageSteps(steps: ReExecution['steps']): steps is readonly StageStep[] {
  return steps[0] !== undefined && 'microbatches' in steps[0];
}

/** Leaves, whose hashes were checked, into a slab. */
function load(segments: readonly Segment[], name: keyof Segment['slabs'], leaves: Leaves): void {
  const flat = flatLength(segments);
  for (const [index, bytes] of leaves.entries()) {
    const [start, end] = tensorLeafRange(flat, index);
    assert(bytes.length === 4 * (end - start), 'leaf of another size');
    const leaf = new Float32Array(bytes.slice().buffer);
    forEachPiece(segments, start, end, (segment, from, to, flatFrom) => {
      segment.slabs[name].set(leaf.subarray(flatFrom - start, flatFrom - start + to - from), from);
    });
  }
}
