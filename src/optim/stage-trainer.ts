/**
 * The inner step of a stage that holds the whole model: microbatch graphs, gradient accumulation, clipping by global
 * norm, AdamW. It owns weights, gradients and moments; it knows nothing of rounds, peers or where batches come from.
 */
import type { ModelConfig } from '../model/config.ts';
import { embeddingName, type StageSpec } from '../model/parameters.ts';
import {
  buildEvaluationGraph,
  buildTrainingGraph,
  gradientOutput,
  rowGradientOutput,
} from '../model/stage-graph.ts';
import { assert, must } from '../std/assert.ts';
import type { Engine, Program } from '../tensor/engine.ts';
import type { Segment } from './segments.ts';

/** Token ids and the ids that follow them, row by row: [batch · sequence] each. */
export interface Batch {
  readonly tokens: Int32Array;
  readonly labels: Int32Array;
}

export interface InnerOptions {
  readonly beta1: number;
  readonly beta2: number;
  readonly epsilon: number;
  /** Of matrices only. */
  readonly weightDecay: number;
  /** Largest global gradient norm. */
  readonly clip: number;
}

export interface StepResult {
  /** Mean cross-entropy per token, in nats. */
  readonly loss: number;
  /** Global L2 norm before clipping. */
  readonly gradientNorm: number;
}

/**
 * 126·ln 2: the loss of the least probability that the loss graphs tell from zero. Logits that are no numbers give no
 * token any probability, so it is also the loss of a model that has overflowed.
 */
export const lossMax = 87.3365447505531;

export interface StageTrainer {
  /** One optimizer step over microbatches of equal size; `step` counts from 1 since the moments began. */
  step(batches: readonly Batch[], learningRate: number, step: number): Promise<StepResult>;
  /** Mean loss per token of the local weights or of w_r over the batches; `lossMax` for a model that has overflowed. */
  evaluate(batches: readonly Batch[], of: 'weights' | 'base'): Promise<number>;
  close(): Promise<void>;
}

export interface TrainerOptions {
  readonly engine: Engine;
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  readonly segments: readonly Segment[];
  readonly inner: InnerOptions;
  /** Sequences in one microbatch, and tokens in one sequence. */
  readonly batch: number;
  readonly sequence: number;
}

export async function createStageTrainer(options: TrainerOptions): Promise<StageTrainer> {
  const { engine, config, stage, segments, inner, batch, sequence } = options;
  assert(stage.embedding && stage.head, 'a stage without embedding or head trains through the pipeline');
  const training = await engine.compile(buildTrainingGraph(config, stage, { batch, sequence }));
  let evaluation: Program | undefined;
  const weights = Object.assign({}, ...segments.map((segment) => segment.weightViews));
  const bases = Object.assign({}, ...segments.map((segment) => segment.baseViews));
  const gradients = gradientFetches(segments, config.tiedEmbeddings);
  const embedding = must(
    segments.find((segment) => segment.weightViews[embeddingName]),
    'a whole model has an embedding',
  );
  const rows = embedding.memory.allocF32(batch * sequence * config.width);
  const ids = embedding.memory.allocI32(batch * sequence);
  const loss = new Float32Array(1);

  const checkBatch = ({ tokens, labels }: Batch) => {
    assert(tokens.length === ids.length && labels.length === ids.length, 'batch of another size');
  };

  const backward = async ({ tokens, labels }: Batch) => {
    const fetches = { ...gradients, [rowGradientOutput(embeddingName)]: rows, loss };
    const gradient = must(embedding.gradientViews[embeddingName], 'embedding gradient');
    // Untied, the embedding's gradient is made of rows alone; tied, the head has just written its part.
    if (!config.tiedEmbeddings) gradient.fill(0);
    await training.run({ ...weights, tokens, labels }, fetches);
    ids.set(tokens);
    embedding.memory.scatterAddRows(gradient, ids, rows, config.width);
    return loss[0]!;
  };

  return {
    step: async (batches, learningRate, step) => {
      assert(batches.length > 0, 'a step needs a batch');
      batches.forEach(checkBatch);
      let total = 0;
      for (const [index, one] of batches.entries()) {
        total += await backward(one);
        if (batches.length > 1) accumulate(segments, index, batches.length);
      }
      const gradientNorm = Math.sqrt(
        segments.reduce((sum, segment) => sum + segment.memory.sumSquares(segment.slabs.gradients), 0),
      );
      const gradientScale = gradientNorm > inner.clip ? inner.clip / gradientNorm : 1;
      for (const segment of segments) adamw(segment, { ...inner, learningRate, step, gradientScale });
      return { loss: total / batches.length, gradientNorm };
    },
    evaluate: async (batches, of) => {
      batches.forEach(checkBatch);
      const parameters = of === 'weights' ? weights : bases;
      evaluation ??= await engine.compile(buildEvaluationGraph(config, stage, { batch, sequence }));
      let total = 0;
      for (const { tokens, labels } of batches) {
        await evaluation.run({ ...parameters, tokens, labels }, { loss });
        total += loss[0]!;
      }
      const mean = total / batches.length;
      return Number.isNaN(mean) ? lossMax : mean;
    },
    close: async () => {
      await training.release();
      await evaluation?.release();
    },
  };
}

/** Where the graph writes: every dense gradient goes straight to its slab. */
function gradientFetches(segments: readonly Segment[], tied: boolean): Record<string, Float32Array> {
  const fetches: Record<string, Float32Array> = {};
  for (const segment of segments) {
    for (const [name, view] of Object.entries(segment.gradientViews)) {
      if (name !== embeddingName || tied) fetches[gradientOutput(name)] = view;
    }
  }
  return fetches;
}

/** Keeps the mean of the gradients so far in `scratch`, and moves it to `gradients` after the last microbatch. */
function accumulate(segments: readonly Segment[], index: number, count: number): void {
  for (const { memory, slabs } of segments) {
    if (index === 0) slabs.scratch.fill(0);
    memory.addScaled(slabs.scratch, slabs.gradients, 1 / count);
    if (index === count - 1) slabs.gradients.set(slabs.scratch);
  }
}

type AdamW = Parameters<Segment['memory']['adamw']>[4];

function adamw(segment: Segment, options: AdamW): void {
  const { weights, gradients, firstMoments, secondMoments } = segment.slabs;
  const range = (start: number, end: number, weightDecay: number) => {
    if (start === end) return;
    segment.memory.adamw(
      weights.subarray(start, end),
      gradients.subarray(start, end),
      firstMoments.subarray(start, end),
      secondMoments.subarray(start, end),
      { ...options, weightDecay },
    );
  };
  range(0, segment.matrixLength, options.weightDecay);
  range(segment.matrixLength, segment.usedLength, 0);
}
