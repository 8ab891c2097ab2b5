/**
 * How a stage computes, whatever part of the model it holds: forward, backward into a sum of gradients, the optimizer
 * step over a sum; and the inner step of a whole model, made of the same pieces. It owns weights, gradients and moments;
 * it knows nothing of rounds, paths, peers or where batches come from.
 */
import type { ModelConfig } from '../model/config.ts';
import { embeddingName, type StageSpec } from '../model/parameters.ts';
import {
  buildEvaluationGraph,
  buildForwardGraph,
  buildTrainingGraph,
  gradientOutput,
  rowGradientOutput,
} from '../model/stage-graph.ts';
import { assert, must } from '../std/assert.ts';
import { CodedError } from '../std/outcome.ts';
import type { Engine, Program } from '../tensor/engine.ts';
import type { Graph } from '../tensor/graph.ts';
import {
  addEmbeddingRows,
  addScratch,
  applyAdamW,
  createGradientSums,
  type GradientSum,
  type GradientSums,
  sumSquares,
} from './pipeline-gradients.ts';
import type { BackwardResult, StageEntry, StageTarget } from './pipeline-stage.ts';
import { type Segment, viewsOf } from './segments.ts';

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

/** What AdamW is told in each step; `step` counts from 1 since the moments began. */
export interface AppliedStep {
  readonly learningRate: number;
  readonly gradientScale: number;
  readonly step: number;
}

/** Local weights, or w_r. */
export type WeightsOf = 'weights' | 'base';

/** Calls must not overlap. */
export interface StageTrainer {
  /** Whether the array is what enters this stage in one microbatch; token values are not looked at. */
  isEntry(array: StageEntry): boolean;
  /** Whether the array is labels (with the head) or dL/dy of one microbatch. */
  isTarget(array: StageTarget): boolean;
  readonly sums: GradientSums;
  /** A new y [n·width]. CodedError `no-rows` for a stage with the head. */
  forward(entry: StageEntry, of: WeightsOf): Promise<Float32Array>;
  /** Recomputes forward, and adds the gradients at the local weights to the sum, if there is one. */
  backward(entry: StageEntry, target: StageTarget, sum: GradientSum | undefined): Promise<BackwardResult>;
  /** Σ g² of the sum by segment, in order. */
  sumSquares(sum: GradientSum): number[];
  /** AdamW on the local weights with g = sum × gradientScale. */
  apply(sum: GradientSum, step: AppliedStep): void;
  /** Mean loss per token; `lossMax` for a model that has overflowed. CodedError `no-loss` without the head. */
  evaluateLoss(entry: StageEntry, labels: Int32Array, of: WeightsOf): Promise<number>;
  /** One optimizer step of a whole model over microbatches of equal size. */
  step(batches: readonly Batch[], learningRate: number, step: number): Promise<StepResult>;
  /** Mean loss per token of a whole model over the batches; `lossMax` for a model that has overflowed. */
  evaluate(batches: readonly Batch[], of: WeightsOf): Promise<number>;
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

/** Bytes that the embedding's memory must have beside its slabs. */
export function embeddingScratchBytes(batch: number, sequence: number, width: number): number {
  return batch * sequence * (width + 1) * 4 + 4096;
}

export async function createStageTrainer(options: TrainerOptions): Promise<StageTrainer> {
  const { config, stage, segments, inner, batch, sequence } = options;
  const count = batch * sequence;
  const passes = await createPasses(options);
  const sums = createGradientSums(segments);

  const isIds = (array: unknown) => array instanceof Int32Array && array.length === count;
  const isRows = (array: unknown) => array instanceof Float32Array && array.length === count * config.width;
  const isEntry = stage.embedding ? isIds : isRows;
  const isTarget = stage.head ? isIds : isRows;
  const checkBatches = (batches: readonly Batch[]) => {
    if (!stage.embedding || !stage.head)
      throw new CodedError('not-whole-model', 'this replica holds one stage of several');
    for (const { tokens, labels } of batches) assert(isIds(tokens) && isIds(labels), 'batch of another size');
  };

  const trainer: StageTrainer = {
    ...passes,
    isEntry,
    isTarget,
    sums,
    sumSquares: (sum) => sumSquares(segments, sum),
    apply: (sum, step) => applyAdamW(segments, sum, { ...inner, ...step }),
    step: async (batches, learningRate, step) => {
      assert(batches.length > 0, 'a step needs a batch');
      checkBatches(batches);
      const sum = sums.take();
      try {
        let total = 0;
        for (const { tokens, labels } of batches)
          total += must((await trainer.backward(tokens, labels, sum)).loss, 'loss');
        const norm = Math.sqrt(trainer.sumSquares(sum).reduce((squares, square) => squares + square, 0));
        const gradientScale = gradientScaleOf(norm, batches.length, inner.clip);
        trainer.apply(sum, { learningRate, step, gradientScale });
        return { loss: total / batches.length, gradientNorm: norm / batches.length };
      } finally {
        sums.give(sum);
      }
    },
    evaluate: async (batches, of) => {
      checkBatches(batches);
      let total = 0;
      for (const { tokens, labels } of batches) total += await passes.evaluateLoss(tokens, labels, of);
      return total / batches.length;
    },
  };
  return trainer;
}

/**
 * What AdamW multiplies a sum of `microbatches` gradients by: clip factor of their mean ÷ microbatches. `norm` is that
 * of the sum over all segments of all stages: √ of the sums of squares by segment, added in order.
 */
export function gradientScaleOf(norm: number, microbatches: number, clip: number): number {
  const meanNorm = norm / microbatches;
  return (meanNorm > clip ? clip / meanNorm : 1) / microbatches;
}

type Passes = Pick<StageTrainer, 'forward' | 'backward' | 'evaluateLoss' | 'close'>;

/** The compiled graphs, fed with the segments' weights. */
async function createPasses(options: TrainerOptions): Promise<Passes> {
  const { engine, config, stage, segments, batch, sequence } = options;
  const shape = { batch, sequence };
  const programs: Program[] = [];
  const compile = async (graph: Graph) => {
    const program = await engine.compile(graph);
    programs.push(program);
    return program;
  };
  const training = await compile(buildTrainingGraph(config, stage, shape));
  const forward = stage.head ? undefined : await compile(buildForwardGraph(config, stage, shape));
  let evaluation: Program | undefined;
  const { parameters, scratchViews } = viewsOfAll(segments);
  const rowElements = batch * sequence * config.width;
  const embedding = segments.find(({ name }) => name === 'embedding')?.memory;
  const embeddingRows = embedding?.allocF32(rowElements);
  const ids = embedding?.allocI32(batch * sequence);
  /** Tied, the head writes its part of the embedding's gradient; untied, that is made of rows alone. */
  const dense = stage.head && config.tiedEmbeddings;
  const loss = new Float32Array(1);
  const { placeX, placeDy } = alignedRows(rowElements);
  const entryFeed = (entry: StageEntry) => (stage.embedding ? { tokens: entry } : { x: placeX(entry) });
  /** What the training graph has just written; the first of a sum lies there already, all but its embedding. */
  const takeIntoSum = (sum: GradientSum, entry: StageEntry) => {
    if (sum.count > 0) addScratch(segments, sum, dense);
    else if (!dense) sum.views[embeddingName]?.fill(0);
    if (embeddingRows && ids) {
      ids.set(entry);
      addEmbeddingRows(segments, sum, ids, embeddingRows);
    }
    sum.count += 1;
  };

  return {
    forward: async (entry, of) => {
      if (!forward) throw new CodedError('no-rows', 'no rows leave the stage with the head');
      const y = new Float32Array(rowElements);
      await forward.run({ ...parameters[of], ...entryFeed(entry) }, { y });
      return y;
    },
    backward: async (entry, target, sum) => {
      const isFirst = sum?.count === 0;
      const inputGradient = stage.embedding ? null : new Float32Array(rowElements);
      const fetches = {
        // The first of a sum is written where the sum is.
        ...gradientFetches(isFirst ? sum.views : scratchViews, dense),
        ...(inputGradient && { dx: inputGradient }),
        ...(embeddingRows && { [rowGradientOutput(embeddingName)]: embeddingRows }),
        ...(stage.head && { loss }),
      };
      const feeds = { ...entryFeed(entry), ...(stage.head ? { labels: target } : { dy: placeDy(target) }) };
      await training.run({ ...parameters.weights, ...feeds }, fetches);
      if (sum) takeIntoSum(sum, entry);
      return { inputGradient, loss: stage.head ? loss[0]! : null };
    },
    evaluateLoss: async (entry, labels, of) => {
      if (!stage.head) throw new CodedError('no-loss', 'the loss is known where the head is');
      evaluation ??= await compile(buildEvaluationGraph(config, stage, shape));
      await evaluation.run({ ...parameters[of], ...entryFeed(entry), labels }, { loss });
      return Number.isNaN(loss[0]) ? lossMax : loss[0]!;
    },
    close: async () => {
      for (const program of programs) await program.release();
    },
  };
}

/** What graphs read and write of all segments, by the parameters' names. */
function viewsOfAll(segments: readonly Segment[]) {
  const merged = (views: readonly Readonly<Record<string, Float32Array>>[]): Record<string, Float32Array> =>
    Object.assign({}, ...views);
  return {
    parameters: {
      weights: merged(segments.map(({ weightViews }) => weightViews)),
      base: merged(segments.map(({ baseViews }) => baseViews)),
    },
    scratchViews: merged(segments.map(({ slabs, parameters }) => viewsOf(slabs.scratch, parameters))),
  };
}

/** Where the graph writes gradients, by its names of them. */
function gradientFetches(
  views: Readonly<Record<string, Float32Array>>,
  withEmbedding: boolean,
): Record<string, Float32Array> {
  const fetches: Record<string, Float32Array> = {};
  for (const [name, view] of Object.entries(views))
    if (name !== embeddingName || withEmbedding) fetches[gradientOutput(name)] = view;
  return fetches;
}

/**
 * Where rows from elsewhere are put before a graph reads them. Sums over them go in another order at another alignment,
 * and buffers that came by message lie anywhere: only at the same place do all processes get the same bits.
 */
function alignedRows(elements: number) {
  const place = () => {
    const pages = Math.ceil((4 * elements) / 65_536);
    let rows: Float32Array | undefined;
    return (from: StageEntry) => {
      rows ??= new Float32Array(new WebAssembly.Memory({ initial: pages }).buffer, 0, elements);
      rows.set(from);
      return rows;
    };
  };
  return { placeX: place(), placeDy: place() };
}
