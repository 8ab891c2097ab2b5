/**
 * The graph that extends a sequence by a few tokens with a key/value cache, for one stage cut anywhere. The cache and
 * the mask belong to the host: the graph reads them and gives back the new rows. It knows no sessions and no sampling.
 */
import { assert } from '../std/assert.ts';
import { type Graph, GraphBuilder, type Value } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { ParameterInputs, transformerLayer } from './layer-graph.ts';
import { checkStage, embeddingName, type StageSpec } from './parameters.ts';
import { rotaryTables } from './rotary.ts';
import { headOperands } from './stage-graph.ts';

export interface DecodeOptions {
  /** Tokens per call; the host pads a shorter call and hides the padding with the mask. */
  readonly newTokens: number;
  /** Positions the cache holds. */
  readonly capacity: number;
  /** Logits of every new position instead of one; false by default. */
  readonly allLogits?: boolean;
}

/** What the mask adds to a score that must not count: finite, so that no row can become NaN. */
export const maskedScore = -1e30;

/** Names of one layer's cache inputs and outputs; `layer` counts from the whole model's first layer. */
export function cacheNames(layer: number) {
  return {
    pastKey: `pastK.${layer}`,
    pastValue: `pastV.${layer}`,
    newKey: `newK.${layer}`,
    newValue: `newV.${layer}`,
  } as const;
}

interface CacheCall {
  readonly builder: GraphBuilder;
  readonly config: ModelConfig;
  readonly options: DecodeOptions;
  readonly mask: Value;
}

/** q [1,H,n,hd] and k, v [KV,n,hd], rotated, with the cache [KV,capacity,hd] → [1,H,n,hd]. */
function cachedAttention(
  call: CacheCall,
  q: Value,
  fresh: readonly [Value, Value],
  past: readonly [Value, Value],
): Value {
  const { builder, config, options, mask } = call;
  const { heads, kvHeads, headWidth } = config;
  const { newTokens, capacity } = options;
  const groups = heads / kvHeads;
  const scale = 1 / Math.sqrt(headWidth);
  const folded = builder.reshape(q, [kvHeads, groups * newTokens, headWidth]);
  const scores = builder.concat(
    [past[0], fresh[0]].map((keys) => builder.batchMatmul(folded, keys, { transB: true, scale })),
    2,
  );
  const columns = capacity + newTokens;
  const masked = builder.add(builder.reshape(scores, [kvHeads, groups, newTokens, columns]), mask);
  const weights = builder.reshape(builder.softmax(masked), [kvHeads, groups * newTokens, columns]);
  const mixed = builder.add(
    builder.batchMatmul(builder.slice(weights, 2, 0, capacity), past[1]),
    builder.batchMatmul(builder.slice(weights, 2, capacity, columns), fresh[1]),
  );
  return builder.reshape(mixed, [1, heads, newTokens, headWidth]);
}

/**
 * With n = newTokens. Inputs: parameters, `tokens` i32 [n] or `x` [n,width], `positions` i32 [n] (each below the
 * model's context), `mask` [n, capacity + n] added to the scores (cache columns first), `pastK.L` and `pastV.L`
 * [KV, capacity, headWidth] for each layer L (keys are stored rotated), and, with the head, `last` i32 [1], the row
 * whose logits are wanted. Outputs: `newK.L` and `newV.L` [KV, n, headWidth], and `y` [n,width] or `logits` [1 or n, V].
 */
export function buildDecodeGraph(config: ModelConfig, stage: StageSpec, options: DecodeOptions): Graph {
  checkStage(config, stage);
  const { newTokens, capacity, allLogits = false } = options;
  const { width, vocabulary, kvHeads, headWidth, context } = config;
  assert(newTokens >= 1 && newTokens <= context, `${newTokens} new tokens in a context of ${context}`);
  assert(capacity >= 1 && capacity <= context, `cache of ${capacity} in a context of ${context}`);
  const builder = new GraphBuilder();
  const parameters = new ParameterInputs(builder);
  const outputs: Record<string, Value> = {};
  let x = stage.embedding
    ? builder.gatherRows(
        parameters.get(embeddingName, [vocabulary, width]),
        builder.input('tokens', 'i32', [newTokens]),
      )
    : builder.input('x', 'f32', [newTokens, width]);
  if (stage.firstLayer < stage.endLayer) {
    const tables = rotaryTables(context, headWidth, config.ropeTheta);
    const positions = builder.input('positions', 'i32', [newTokens]);
    const cosine = builder.gatherRows(builder.constant(tables.cosine, [context, headWidth / 2]), positions);
    const sine = builder.gatherRows(builder.constant(tables.sine, [context, headWidth / 2]), positions);
    const mask = builder.input('mask', 'f32', [newTokens, capacity + newTokens]);
    const call = { builder, config, options, mask };
    for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
      const names = cacheNames(layer);
      const attend = (q: Value, k: Value, v: Value) => {
        const fresh = [builder.rope(k, cosine, sine), v].map((rows) =>
          builder.reshape(rows, [kvHeads, newTokens, headWidth]),
        ) as [Value, Value];
        [outputs[names.newKey], outputs[names.newValue]] = fresh;
        const past = [names.pastKey, names.pastValue].map((name) =>
          builder.input(name, 'f32', [kvHeads, capacity, headWidth]),
        ) as [Value, Value];
        return cachedAttention(call, builder.rope(q, cosine, sine), fresh, past);
      };
      x = transformerLayer({ builder, config, parameters, layer, batch: 1, sequence: newTokens, attend }, x);
    }
  }
  if (!stage.head) return builder.finish({ y: x, ...outputs });
  const rows = allLogits ? x : builder.gatherRows(x, builder.input('last', 'i32', [1]));
  const { hidden, table } = headOperands(builder, config, parameters, rows);
  return builder.finish({ logits: builder.matmul(hidden, table, { transB: true }), ...outputs });
}
