/**
 * Where a model is cut into stages: contiguous layers, balanced by parameters, the same on every node. A pure function of
 * configuration and number of stages; it knows no nodes.
 */
import { CodedError } from '../std/outcome.ts';
import type { ModelConfig } from './config.ts';
import { type StageSpec, stageParameterCount, wholeModel } from './parameters.ts';

/**
 * The cut whose heaviest stage is lightest, earlier stages taking more layers on a tie. Every stage holds a layer at
 * least. Throws CodedError `bad-stages` for fewer than one or more stages than layers, and for several stages of a model
 * with tied embeddings.
 */
export function cutStages(config: ModelConfig, count: number): readonly StageSpec[] {
  if (!(Number.isInteger(count) && count >= 1 && count <= config.layers))
    throw new CodedError('bad-stages', `${count} stages of a model with ${config.layers} layers`);
  if (count === 1) return [wholeModel(config)];
  if (config.tiedEmbeddings)
    throw new CodedError('bad-stages', 'a model with tied embeddings cannot be cut into stages');
  // best[k] at layer l: the lightest heaviest stage of the first l layers in k + 1 stages, and where its last stage starts.
  let best = Array.from({ length: config.layers + 1 }, (_, end) => ({
    heaviest: end === 0 ? Number.POSITIVE_INFINITY : weightOf(config, 0, end),
    starts: [0],
  }));
  for (let stages = 2; stages <= count; stages++) {
    const previous = best;
    best = previous.map((_, end) => {
      let chosen = { heaviest: Number.POSITIVE_INFINITY, starts: [0] };
      for (let start = end - 1; start >= stages - 1; start--) {
        const before = previous[start]!;
        const heaviest = Math.max(before.heaviest, weightOf(config, start, end));
        if (heaviest < chosen.heaviest) chosen = { heaviest, starts: [...before.starts, start] };
      }
      return chosen;
    });
  }
  const { starts } = best[config.layers]!;
  return starts.map((start, i) => stageOf(config, start, starts[i + 1] ?? config.layers));
}

function stageOf(config: ModelConfig, firstLayer: number, endLayer: number): StageSpec {
  return { firstLayer, endLayer, embedding: firstLayer === 0, head: endLayer === config.layers };
}

/** The embedding is a table look-up and the head a product with the whole table: only the head's share is work. */
function weightOf(config: ModelConfig, start: number, end: number): number {
  const stage = stageOf(config, start, end);
  return stageParameterCount(config, { ...stage, embedding: false });
}
