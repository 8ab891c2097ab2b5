/**
 * The graphs of one stage, cut anywhere: training (forward recomputed, then backward), forward and evaluation.
 * Parameters are inputs under their Hugging Face names. It runs nothing and knows no engine, no wire and no optimizer.
 *
 * Names, with n = batch × sequence: `tokens` and `labels` i32 [n], `x`, `y`, `dx`, `dy` [n, width], `logits`
 * [n, vocabulary], `loss` [1], `grad.NAME` of the parameter's shape, `gradRows.NAME` [n, width] for the embedding.
 */
import { assert } from '../std/assert.ts';
import { CodedError } from '../std/outcome.ts';
import { differentiate } from '../tensor/autodiff.ts';
import { type Graph, GraphBuilder, type Value } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { ParameterInputs, rmsNorm, transformerLayer } from './layer-graph.ts';
import { lossAndGradient, lossChunkTokens, tokenLosses } from './loss-graph.ts';
import {
  checkStage,
  embeddingName,
  finalNormName,
  headName,
  parameterList,
  type StageSpec,
} from './parameters.ts';
import { rotaryTables } from './rotary.ts';

export interface BatchShape {
  /** Sequences per microbatch. */
  readonly batch: number;
  /** Tokens per sequence, at most the model's context. */
  readonly sequence: number;
}

export interface TrainingOptions extends BatchShape {
  /** Whether a stage fed by `x` gives `dx`; true unless the stage before it is frozen. */
  readonly inputGradient?: boolean;
  /** Tokens per chunk of the loss head; chosen from the vocabulary by default. */
  readonly lossChunk?: number;
}

/** The output that holds the gradient of parameter `name`. */
export function gradientOutput(name: string): string {
  return `grad.${name}`;
}

/**
 * The output whose row i is the gradient of the embedding row of token i: the host scatter-adds it on the zeroed
 * gradient of `name`, or, with tied embeddings, on what `gradientOutput(name)` wrote there.
 */
export function rowGradientOutput(name: string): string {
  return `gradRows.${name}`;
}

/** A stage's forward pass inside a builder. */
interface StageForward {
  readonly parameters: ParameterInputs;
  /** What enters the first layer: the gathered embedding rows, or the input `x`. */
  readonly entry: Value;
  /** What leaves the last layer, before the final norm. */
  readonly exit: Value;
}

function checkBatch(config: ModelConfig, { batch, sequence }: BatchShape): void {
  assert(Number.isInteger(batch) && batch >= 1, `batch of ${batch}`);
  if (!(Number.isInteger(sequence) && sequence >= 1 && sequence <= config.context)) {
    throw new CodedError(
      'bad-sequence',
      `${sequence} tokens in a sequence; the context is ${config.context}`,
    );
  }
}

function stageForward(
  builder: GraphBuilder,
  config: ModelConfig,
  stage: StageSpec,
  shape: BatchShape,
): StageForward {
  checkStage(config, stage);
  checkBatch(config, shape);
  const { batch, sequence } = shape;
  const { width, vocabulary, headWidth } = config;
  const parameters = new ParameterInputs(builder);
  const rows = batch * sequence;
  const entry = stage.embedding
    ? builder.gatherRows(
        parameters.get(embeddingName, [vocabulary, width]),
        builder.input('tokens', 'i32', [rows]),
      )
    : builder.input('x', 'f32', [rows, width]);
  let exit = entry;
  if (stage.firstLayer < stage.endLayer) {
    const tables = rotaryTables(sequence, headWidth, config.ropeTheta);
    const cosine = builder.constant(tables.cosine, [sequence, headWidth / 2]);
    const sine = builder.constant(tables.sine, [sequence, headWidth / 2]);
    const attend = (q: Value, k: Value, v: Value) =>
      builder.causalAttention(builder.rope(q, cosine, sine), builder.rope(k, cosine, sine), v);
    for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
      exit = transformerLayer({ builder, config, parameters, layer, batch, sequence, attend }, exit);
    }
  }
  return { parameters, entry, exit };
}

interface HeadOperands {
  /** Normed residual stream, [n,d]. */
  readonly hidden: Value;
  /** The output projection, [V,d]: the embedding itself when tied. */
  readonly table: Value;
}

export function headOperands(
  builder: GraphBuilder,
  config: ModelConfig,
  parameters: ParameterInputs,
  x: Value,
): HeadOperands {
  const { width, vocabulary, normEpsilon, tiedEmbeddings } = config;
  const hidden = rmsNorm(builder, x, parameters.get(finalNormName, [width]), normEpsilon);
  return { hidden, table: parameters.get(tiedEmbeddings ? embeddingName : headName, [vocabulary, width]) };
}

/**
 * Loss and gradients of a stage. Inputs: parameters, `tokens` or `x`, and `labels` (head) or `dy`. Outputs: `loss`
 * (head; mean over the tokens), `dx` (fed by `x`), `grad.NAME` in canonical order, and `gradRows.NAME` (embedding).
 */
export function buildTrainingGraph(config: ModelConfig, stage: StageSpec, options: TrainingOptions): Graph {
  const builder = new GraphBuilder();
  const { parameters, entry, exit } = stageForward(builder, config, stage, options);
  const rows = options.batch * options.sequence;
  const outputs: Record<string, Value> = {};
  const tableGradients = new Map<string, Value>();
  let seed: readonly [Value, Value];
  if (stage.head) {
    const labels = builder.input('labels', 'i32', [rows]);
    const { hidden, table } = headOperands(builder, config, parameters, exit);
    const chunk = options.lossChunk ?? lossChunkTokens(config.vocabulary);
    const { loss, dHidden, dTable } = lossAndGradient(builder, hidden, table, labels, chunk);
    outputs.loss = loss;
    tableGradients.set(config.tiedEmbeddings ? embeddingName : headName, dTable);
    seed = [hidden, dHidden];
  } else {
    seed = [exit, builder.input('dy', 'f32', [rows, config.width])];
  }
  const list = parameterList(config, stage);
  const differentiated = list.filter(({ name }) => name !== embeddingName && name !== headName);
  const wantsEntry = stage.embedding || (options.inputGradient ?? true);
  const wrt = differentiated.map(({ name, shape }) => parameters.get(name, shape));
  const gradients = differentiate(builder, { seeds: [seed], wrt: wantsEntry ? [...wrt, entry] : wrt });
  if (wantsEntry && !stage.embedding) outputs.dx = gradients.at(-1)!;
  const byName = new Map(differentiated.map(({ name }, i) => [name, gradients[i]!]));
  for (const { name } of list) {
    const gradient = tableGradients.get(name) ?? byName.get(name);
    if (gradient) outputs[gradientOutput(name)] = gradient;
  }
  if (stage.embedding) outputs[rowGradientOutput(embeddingName)] = gradients.at(-1)!;
  return builder.finish(outputs);
}

/** Inputs: parameters and `tokens` or `x`. Output: `y`, or `logits` of every position if the stage has the head. */
export function buildForwardGraph(config: ModelConfig, stage: StageSpec, shape: BatchShape): Graph {
  const builder = new GraphBuilder();
  const { parameters, exit } = stageForward(builder, config, stage, shape);
  if (!stage.head) return builder.finish({ y: exit });
  const { hidden, table } = headOperands(builder, config, parameters, exit);
  return builder.finish({ logits: builder.matmul(hidden, table, { transB: true }) });
}

export interface EvaluationOptions extends BatchShape {
  readonly lossChunk?: number;
  /** Whether the loss of every token is an output too. */
  readonly perToken?: boolean;
}

/**
 * The held-out loss of a stage with the head. Inputs: parameters, `tokens` or `x`, `labels`. Outputs: `loss` [1], the
 * mean over the tokens, and on request `losses` [n], one per token in order.
 */
export function buildEvaluationGraph(
  config: ModelConfig,
  stage: StageSpec,
  options: EvaluationOptions,
): Graph {
  if (!stage.head) throw new CodedError('bad-stage', 'a loss needs a stage with the LM head');
  const builder = new GraphBuilder();
  const { parameters, exit } = stageForward(builder, config, stage, options);
  const labels = builder.input('labels', 'i32', [options.batch * options.sequence]);
  const { hidden, table } = headOperands(builder, config, parameters, exit);
  const chunk = options.lossChunk ?? lossChunkTokens(config.vocabulary);
  const losses = tokenLosses(builder, hidden, table, labels, chunk);
  const loss = builder.reduceMean(losses, [0]);
  return builder.finish(options.perToken ? { loss, losses } : { loss });
}
