/**
 * One transformer layer and its norm as graph nodes: RMSNorm, rotary grouped-query attention, SwiGLU, residuals. It
 * declares parameters as graph inputs under their Hugging Face names, and knows nothing of stages, losses or caches.
 */
import type { GraphBuilder, Value } from '../tensor/graph.ts';
import type { ModelConfig } from './config.ts';
import { layerNames } from './parameters.ts';

/** Declares each parameter as a graph input on first use, and remembers it. */
export class ParameterInputs {
  readonly #builder: GraphBuilder;
  readonly #declared = new Map<string, Value>();

  constructor(builder: GraphBuilder) {
    this.#builder = builder;
  }

  /** The graph input `name`; `shape` is [out, in] or [width]. */
  get(name: string, shape: readonly number[]): Value {
    const known = this.#declared.get(name);
    if (known) return known;
    const value = this.#builder.input(name, 'f32', shape);
    this.#declared.set(name, value);
    return value;
  }
}

/** x [n,d], weight [d] → x / √(mean(x²) + epsilon) · weight (Zhang and Sennrich 2019), from primitives. */
export function rmsNorm(builder: GraphBuilder, x: Value, weight: Value, epsilon: number): Value {
  const meanSquare = builder.reduceMean(builder.mul(x, x), [x.shape.length - 1]);
  const inverse = builder.reciprocal(builder.sqrt(builder.add(meanSquare, builder.scalar(epsilon))));
  return builder.mul(builder.mul(x, inverse), weight);
}

/** q [B,H,S,hd], k and v [B,KV,S,hd], before rotation → [B,H,S,hd]. */
export type Attend = (q: Value, k: Value, v: Value) => Value;

export interface LayerCall {
  readonly builder: GraphBuilder;
  readonly config: ModelConfig;
  readonly parameters: ParameterInputs;
  readonly layer: number;
  readonly batch: number;
  readonly sequence: number;
  readonly attend: Attend;
}

/** x [B·S,d] → y [B·S,d]. */
export function transformerLayer(call: LayerCall, x: Value): Value {
  const middle = call.builder.add(attention(call, x), x);
  return call.builder.add(feedForward(call, middle), middle);
}

function attention(call: LayerCall, x: Value): Value {
  const { builder, config, parameters, layer, batch, sequence, attend } = call;
  const { width, heads, kvHeads, headWidth } = config;
  const names = layerNames(layer);
  const normed = rmsNorm(builder, x, parameters.get(names.attentionNorm, [width]), config.normEpsilon);
  const project = (name: string, count: number) => {
    const weight = parameters.get(name, [count * headWidth, width]);
    const rows = builder.matmul(normed, weight, { transB: true });
    return builder.transpose(builder.reshape(rows, [batch, sequence, count, headWidth]), [0, 2, 1, 3]);
  };
  const mixed = attend(
    project(names.query, heads),
    project(names.key, kvHeads),
    project(names.value, kvHeads),
  );
  const rows = builder.reshape(builder.transpose(mixed, [0, 2, 1, 3]), [batch * sequence, heads * headWidth]);
  return builder.matmul(rows, parameters.get(names.output, [width, heads * headWidth]), { transB: true });
}

function feedForward(call: LayerCall, x: Value): Value {
  const { builder, config, parameters, layer } = call;
  const { width, ffn } = config;
  const names = layerNames(layer);
  const normed = rmsNorm(builder, x, parameters.get(names.ffnNorm, [width]), config.normEpsilon);
  const gate = builder.matmul(normed, parameters.get(names.gate, [ffn, width]), { transB: true });
  const up = builder.matmul(normed, parameters.get(names.up, [ffn, width]), { transB: true });
  const hidden = builder.mul(builder.silu(gate), up);
  return builder.matmul(hidden, parameters.get(names.down, [width, ffn]), { transB: true });
}
