/**
 * The graph that extends sequences by a few tokens each with key/value caches, for one stage cut anywhere. The caches
 * and the mask belong to the host: the graph reads them and gives back the new rows. It knows no sessions and no
 * sampling.
 */
import { assert } from '../std/assert.ts';
import { type Graph, GraphBuilder, type Value } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { ParameterInputs, transformerLayer } from './layer-graph.ts';
import { checkStage, embeddingName, type StageSpec } from './parameters.ts';
import { rotaryTables } from './rotary.ts';
import { headOperands } from './stage-graph.ts';

export interface DecodeOptions {
  /** Sequences of a call, each with a cache of its own; 1 by default. */
  readonly sequences?: number;
  /** Tokens of a sequence in a call; the host pads a shorter one and hides the padding with the mask. */
  readonly newTokens: number;
  /** Positions the cache of a sequence holds. */
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
  readonly sequences: number;
  readonly newTokens: number;
  readonly capacity: number;
  readonly mask: Value;
}

/** [1,heads,B·n,hd], as a layer has its rows → [B,heads,n,hd], as caches have them. */
function bySequence({ builder, config, sequences, newTokens }: CacheCall, rows: Value): Value {
  const heads = rows.shape[1]!;
  if (sequences === 1) return rows;
  const split = builder.reshape(rows, [heads, sequences, newTokens, config.headWidth]);
  return builder.transpose(split, [1, 0, 2, 3]);
}

/** q [1,H,B·n,hd] and k, v [B,KV,n,hd], rotated, with the caches [B,KV,capacity,hd] → [1,H,B·n,hd]. */
function cachedAttention(
  call: CacheCall,
  q: Value,
  fresh: readonly [Value, Value],
  past: readonly [Value, Value],
): Value {
  const { builder, config, sequences, newTokens, capacity, mask } = call;
  const { heads, kvHeads, headWidth } = config;
  const groups = heads / kvHeads;
  const scale = 1 / Math.sqrt(headWidth);
  const folded = builder.reshape(bySequence(call, q), [sequences, kvHeads, groups * newTokens, headWidth]);
  const scores = builder.concat(
    [past[0], fresh[0]].map((keys) => builder.batchMatmul(folded, keys, { transB: true, scale })),
    3,
  );
  const columns = capacity + newTokens;
  const masked = builder.add(
    builder.reshape(scores, [sequences, kvHeads * groups, newTokens, columns]),
    builder.reshape(mask, [sequences, 1, newTokens, columns]),
  );
  const weights = builder.reshape(builder.softmax(masked), [sequences, kvHeads, groups * newTokens, columns]);
  const mixed = builder.add(
    builder.batchMatmul(builder.slice(weights, 3, 0, capacity), past[1]),
    builder.batchMatmul(builder.slice(weights, 3, capacity, columns), fresh[1]),
  );
  if (sequences === 1) return builder.reshape(mixed, [1, heads, newTokens, headWidth]);
  const split = builder.reshape(mixed, [sequences, heads, newTokens, headWidth]);
  return builder.reshape(builder.transpose(split, [1, 0, 2, 3]), [
    1,
    heads,
    sequences * newTokens,
    headWidth,
  ]);
}

/**
 * With B = sequences, n = newTokens. Inputs: parameters, `tokens` i32 [B·n] or `x` [B·n,width], `positions` i32 [B·n]
 * (each below the model's context), `mask` [B·n, capacity + n] added to the scores (cache columns first), `pastK.L` and
 * `pastV.L` [B, KV, capacity, headWidth] for each layer L (keys are stored rotated), and, with the head, `last` i32 [B],
 * the rows whose logits are wanted. Outputs: `newK.L` and `newV.L` [B, KV, n, headWidth], and `y` [B·n,width] or
 * `logits` [B or B·n, V]. A sequence's results depend on no other sequence.
 */
export function buildDecodeGraph(config: ModelConfig, stage: StageSpec, options: DecodeOptions): Graph {
  checkStage(config, stage);
  const { sequences = 1, newTokens, capacity, allLogits = false } = options;
  const { width, vocabulary, kvHeads, headWidth, context } = config;
  assert(Number.isInteger(sequences) && sequences >= 1, `${sequences} sequences`);
  assert(newTokens >= 1 && newTokens <= context, `${newTokens} new tokens in a context of ${context}`);
  assert(capacity >= 1 && capacity <= context, `cache of ${capacity} in a context of ${context}`);
  const rows = sequences * newTokens;
  const builder = new GraphBuilder();
  const parameters = new ParameterInputs(builder);
  const outputs: Record<string, Value> = {};
  let x = stage.embedding
    ? builder.gatherRows(
        parameters.get(embeddingName, [vocabulary, width]),
        builder.input('tokens', 'i32', [rows]),
      )
    : builder.input('x', 'f32', [rows, width]);
  if (stage.firstLayer < stage.endLayer) {
    const tables = rotaryTables(context, headWidth, config.ropeTheta);
    const positions = builder.input('positions', 'i32', [rows]);
    const cosine = builder.gatherRows(builder.constant(tables.cosine, [context, headWidth / 2]), positions);
    const sine = builder.gatherRows(builder.constant(tables.sine, [context, headWidth / 2]), positions);
    const mask = builder.input('mask', 'f32', [rows, capacity + newTokens]);
    const call: CacheCall = { builder, config, sequences, newTokens, capacity, mask };
    for (let layer = stage.firstLayer; layer < stage.endLayer; layer++) {
      const names = cacheNames(layer);
      const attend = (q: Value, k: Value, v: Value) => {
        const fresh = [builder.rope(k, cosine, sine), v].map((heads) => bySequence(call, heads)) as [
          Value,
          Value,
        ];
        [outputs[names.newKey], outputs[names.newValue]] = fresh;
        const past = [names.pastKey, names.pastValue].map((name) =>
          builder.input(name, 'f32', [sequences, kvHeads, capacity, headWidth]),
        ) as [Value, Value];
        return cachedAttention(call, builder.rope(q, cosine, sine), fresh, past);
      };
      x = transformerLayer({ builder, config, parameters, layer, batch: 1, sequence: rows, attend }, x);
    }
  }
  if (!stage.head) return builder.finish({ y: x, ...outputs });
  const wanted = allLogits ? x : builder.gatherRows(x, builder.input('last', 'i32', [sequences]));
  const { hidden, table } = headOperands(builder, config, parameters, wanted);
  return builder.finish({ logits: builder.matmul(hidden, table, { transB: true }), ...outputs });
}
