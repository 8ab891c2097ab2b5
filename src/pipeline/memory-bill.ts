/**
 * What it takes to hold and train a stage, in bytes, before anything is allocated: the state from the layout itself, the
 * activations from the training graph. It knows no machine and no engine; an engine's own overhead comes on top.
 */
import type { ModelConfig } from '../model/config.ts';
import type { StageSpec } from '../model/parameters.ts';
import { cutStages } from '../model/stage-cut.ts';
import { type BatchShape, buildTrainingGraph } from '../model/stage-graph.ts';
import { segmentsBytes, stageFlatLength } from '../optim/segments.ts';
import { embeddingScratchBytes } from '../optim/stage-trainer.ts';
import { type Graph, type Node, sizeOf, type Value } from '../tensor/graph.ts';

export interface MemoryBillOptions extends BatchShape {
  /** Kept at once between their forward and the step: G of the node's own step, or what others send. */
  readonly microbatches: number;
  /** Drivers whose gradients are summed at once; 1 unless given. */
  readonly paths?: number;
}

/** Query rows of one chunk of attention (the lowering's). */
const attentionChunk = 128;
/** What an engine takes for the temporaries, to what they need: onnxruntime took 1.8 to 2.4 times as much (`small`, `medium`). */
const arenaFactor = 2.5;

/**
 * Bytes of weights, gradients, two moments, base, velocity, error feedback, scratch and an encoded contribution; of one
 * further sum for each path but the first; of the rows and targets kept; and of the activations of one microbatch.
 */
export function stageMemoryBytes(config: ModelConfig, stage: StageSpec, options: MemoryBillOptions): number {
  const { batch, sequence, microbatches, paths = 1 } = options;
  const state = segmentsBytes(config, stage, embeddingScratchBytes(batch, sequence, config.width));
  const rows = 4 * batch * sequence * config.width;
  const ids = 4 * batch * sequence;
  const kept = (stage.embedding ? ids : rows) + (stage.head ? ids : rows);
  const activations = temporariesPeak(buildTrainingGraph(config, stage, { batch, sequence }));
  return Math.ceil(
    state +
      (paths - 1) * 4 * stageFlatLength(config, stage) +
      microbatches * kept +
      arenaFactor * activations +
      // What comes in, and what goes out.
      2 * rows,
  );
}

/** The bill of each stage of the model cut into `count`. Throws as `cutStages` does. */
export function stageBills(config: ModelConfig, count: number, options: MemoryBillOptions): number[] {
  return cutStages(config, count).map((stage) => stageMemoryBytes(config, stage, options));
}

/**
 * The most bytes that values of the graph take at once when they are computed in order and freed after their last use:
 * inputs and outputs lie elsewhere, and a reshaped value is the same bytes.
 */
function temporariesPeak(graph: Graph): number {
  const owner = new Map<number, number>();
  const ownerOf = (value: Value) => owner.get(value.id) ?? value.id;
  const lastUse = new Map<number, number>();
  for (const [place, { primitive, inputs, outputs }] of graph.nodes.entries()) {
    if (primitive.op === 'reshape') owner.set(outputs[0]!.id, ownerOf(inputs[0]!));
    for (const value of inputs) lastUse.set(ownerOf(value), place);
  }
  const elsewhere = new Set([...graph.outputs.values()].map(ownerOf));
  const freedAt = new Map<number, number>();
  let live = 0;
  let peak = 0;
  for (const [place, node] of graph.nodes.entries()) {
    if (node.primitive.op === 'input' || node.primitive.op === 'reshape') continue;
    for (const value of node.outputs) {
      if (elsewhere.has(value.id)) continue;
      const bytes = 4 * sizeOf(value.shape);
      live += bytes;
      const last = lastUse.get(value.id) ?? place;
      freedAt.set(last, (freedAt.get(last) ?? 0) + bytes);
    }
    peak = Math.max(peak, live + workBytes(node));
    live -= freedAt.get(place) ?? 0;
  }
  return peak;
}

/** Attention holds scores of one chunk of queries: one such tensor forward, three backward. */
function workBytes({ primitive, inputs }: Node): number {
  const tensors = primitive.op === 'causalAttention' ? 1 : primitive.op === 'causalAttentionGrad' ? 3 : 0;
  if (tensors === 0) return 0;
  const [batch = 1, heads = 1, sequence = 1] = inputs[0]!.shape;
  return 4 * tensors * batch * heads * Math.min(attentionChunk, sequence) * sequence;
}
