/**
 * Which parameters a stage holds: Hugging Face `LlamaForCausalLM` names and shapes ([out, in]) in one canonical
 * order, which checkpoints, state hashes and contributions all follow. It knows no values.
 */
import { assert } from '../std/assert.ts';
import { CodedError } from '../std/outcome.ts';
import { layerParameterCount, type ModelConfig } from './config.ts';

/** Layers [firstLayer, endLayer), with the embedding and/or the LM head (final norm and output projection). */
export interface StageSpec {
  readonly firstLayer: number;
  readonly endLayer: number;
  readonly embedding: boolean;
  readonly head: boolean;
}

/** What is stored, hashed and exchanged as one unit. */
export type Segment = 'embedding' | `layer.${number}` | 'head';

export interface ParameterSpec {
  /** Hugging Face's name. */
  readonly name: string;
  readonly shape: readonly number[];
  /** Weight decay acts on matrices only; within a segment they precede the vectors. */
  readonly kind: 'matrix' | 'vector';
  readonly segment: Segment;
  /** Whether the optimizer moves it; every parameter of NeuroLLM is trained. */
  readonly trainable: boolean;
}

export const embeddingName = 'model.embed_tokens.weight';
export const headName = 'lm_head.weight';
export const finalNormName = 'model.norm.weight';

/** The names of one layer's parameters. */
export function layerNames(layer: number) {
  const prefix = `model.layers.${layer}`;
  return {
    query: `${prefix}.self_attn.q_proj.weight`,
    key: `${prefix}.self_attn.k_proj.weight`,
    value: `${prefix}.self_attn.v_proj.weight`,
    output: `${prefix}.self_attn.o_proj.weight`,
    gate: `${prefix}.mlp.gate_proj.weight`,
    up: `${prefix}.mlp.up_proj.weight`,
    down: `${prefix}.mlp.down_proj.weight`,
    attentionNorm: `${prefix}.input_layernorm.weight`,
    ffnNorm: `${prefix}.post_attention_layernorm.weight`,
  } as const;
}

export function wholeModel(config: ModelConfig): StageSpec {
  return { firstLayer: 0, endLayer: config.layers, embedding: true, head: true };
}

/** Throws CodedError `bad-stage` for a range outside the model, an empty stage, or tied tables held apart. */
export function checkStage(config: ModelConfig, stage: StageSpec): void {
  const { firstLayer, endLayer, embedding, head } = stage;
  const inRange =
    Number.isInteger(firstLayer) &&
    Number.isInteger(endLayer) &&
    0 <= firstLayer &&
    firstLayer <= endLayer &&
    endLayer <= config.layers;
  if (!inRange) throw new CodedError('bad-stage', `layers ${firstLayer} to ${endLayer} of ${config.layers}`);
  if (firstLayer === endLayer && !embedding && !head)
    throw new CodedError('bad-stage', 'the stage holds nothing');
  if (embedding && firstLayer !== 0) throw new CodedError('bad-stage', 'the embedding goes with layer 0');
  if (head && endLayer !== config.layers)
    throw new CodedError('bad-stage', 'the head goes with the last layer');
  if (config.tiedEmbeddings && embedding !== head) {
    throw new CodedError('bad-stage', 'tied embeddings need one stage with both embedding and head');
  }
}

function layerParameters(config: ModelConfig, layer: number): ParameterSpec[] {
  const { width, heads, kvHeads, headWidth, ffn } = config;
  const names = layerNames(layer);
  const segment: Segment = `layer.${layer}`;
  const matrix = (name: string, out: number, into: number): ParameterSpec => ({
    name,
    shape: [out, into],
    kind: 'matrix',
    segment,
    trainable: true,
  });
  const vector = (name: string): ParameterSpec => ({
    name,
    shape: [width],
    kind: 'vector',
    segment,
    trainable: true,
  });
  return [
    matrix(names.query, heads * headWidth, width),
    matrix(names.key, kvHeads * headWidth, width),
    matrix(names.value, kvHeads * headWidth, width),
    matrix(names.output, width, heads * headWidth),
    matrix(names.gate, ffn, width),
    matrix(names.up, ffn, width),
    matrix(names.down, width, ffn),
    vector(names.attentionNorm),
    vector(names.ffnNorm),
  ];
}

/** The stage's parameters in canonical order: embedding, layers ascending, head; matrices first in each segment. */
export function parameterList(config: ModelConfig, stage: StageSpec): ParameterSpec[] {
  checkStage(config, stage);
  const { width, vocabulary } = config;
  const table = { shape: [vocabulary, width], kind: 'matrix', trainable: true } as const;
  const list: ParameterSpec[] = [];
  if (stage.embedding) list.push({ name: embeddingName, segment: 'embedding', ...table });
  for (let layer = stage.firstLayer; layer < stage.endLayer; layer++)
    list.push(...layerParameters(config, layer));
  if (stage.head) {
    if (!config.tiedEmbeddings) list.push({ name: headName, segment: 'head', ...table });
    list.push({ name: finalNormName, shape: [width], kind: 'vector', segment: 'head', trainable: true });
  }
  assert(elementCount(list) === stageParameterCount(config, stage), 'parameter list and count disagree');
  return list;
}

export function elementCount(parameters: readonly ParameterSpec[]): number {
  let total = 0;
  for (const { shape } of parameters) total += shape.reduce((product, length) => product * length, 1);
  return total;
}

/** Elements the stage holds, from dimensions alone. */
export function stageParameterCount(config: ModelConfig, stage: StageSpec): number {
  const table = config.vocabulary * config.width;
  let total = (stage.endLayer - stage.firstLayer) * layerParameterCount(config);
  if (stage.embedding) total += table;
  if (stage.head) total += config.width + (config.tiedEmbeddings ? 0 : table);
  return total;
}
