/**
 * The gradient of every primitive, as graph nodes: an exhaustive table, so an operation without a rule does not
 * compile. A rule sees one node and knows nothing of the rest of the graph; `autodiff.ts` walks it.
 */
import { must } from '../std/assert.ts';
import {
  type GraphBuilder,
  GraphError,
  type Node,
  type OpName,
  type PrimitiveOf,
  type Shape,
  sameShape,
  sizeOf,
  type Value,
} from './graph.ts';

export interface RuleCall<K extends OpName> {
  readonly builder: GraphBuilder;
  readonly primitive: PrimitiveOf<K>;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
  /**
   * Gradient of the first output. Its shape only broadcasts to the output's shape (a mean's gradient is one number
   * a row); `full` materialises it.
   */
  readonly gradient: Value;
  /** Which inputs need a gradient. */
  readonly wanted: readonly boolean[];
}

/** One gradient per input, undefined where none is wanted; each may be of any shape that broadcasts to the input's. */
type Rule<K extends OpName> = (call: RuleCall<K>) => readonly (Value | undefined)[];

/** The gradient in the output's full shape. */
function full(call: RuleCall<OpName>): Value {
  return materialise(call.builder, call.gradient, call.outputs[0]!.shape);
}

export function materialise(builder: GraphBuilder, value: Value, shape: Shape): Value {
  return sameShape(value.shape, shape) ? value : builder.broadcast(value, shape);
}

/** Sums `gradient`, which belongs to a value of shape `from`, over the axes that broadcasting `to` → `from` repeated. */
function unbroadcast(builder: GraphBuilder, gradient: Value, from: Shape, to: Shape): Value {
  if (sameShape(from, to)) return gradient;
  const whole = materialise(builder, gradient, from);
  const missing = from.length - to.length;
  const axes = from
    .map((_, axis) => axis)
    .filter((axis) => (axis < missing ? 1 : to[axis - missing]!) !== from[axis]);
  const summed = axes.length > 0 ? builder.reduceSum(whole, axes) : whole;
  return sameShape(summed.shape, to) ? summed : builder.reshape(summed, to);
}

/** Gradients of an elementwise binary from the two unreduced products, made only when wanted. */
function binary(call: RuleCall<OpName>, left: () => Value, right: () => Value): (Value | undefined)[] {
  const from = call.outputs[0]!.shape;
  return [left, right].map((product, side) =>
    call.wanted[side] ? unbroadcast(call.builder, product(), from, call.inputs[side]!.shape) : undefined,
  );
}

function notTwice(call: RuleCall<OpName>): never {
  throw new GraphError(`${call.primitive.op}: second derivatives are not supported`);
}

const matmulRule: Rule<'matmul'> = (call) => {
  const { builder, inputs, wanted, primitive } = call;
  const { transA, transB } = primitive;
  const [a, b] = inputs as [Value, Value];
  const dy = full(call);
  const left = () =>
    transA
      ? builder.matmul(b, dy, { transA: transB, transB: true })
      : builder.matmul(dy, b, { transB: !transB });
  const right = () =>
    transB
      ? builder.matmul(dy, a, { transA: true, transB: transA })
      : builder.matmul(a, dy, { transA: !transA });
  return [wanted[0] ? left() : undefined, wanted[1] ? right() : undefined];
};

const batchMatmulRule: Rule<'batchMatmul'> = (call) => {
  const { builder, inputs, wanted, primitive } = call;
  const { transA, transB, scale } = primitive;
  const [a, b] = inputs as [Value, Value];
  const dy = full(call);
  const left = () =>
    transA
      ? builder.batchMatmul(b, dy, { transA: transB, transB: true, scale })
      : builder.batchMatmul(dy, b, { transB: !transB, scale });
  const right = () =>
    transB
      ? builder.batchMatmul(dy, a, { transA: true, transB: transA, scale })
      : builder.batchMatmul(a, dy, { transA: !transA, scale });
  return [wanted[0] ? left() : undefined, wanted[1] ? right() : undefined];
};

const mulRule: Rule<'mul'> = (call) => {
  const { builder, gradient, inputs } = call;
  const [a, b] = inputs as [Value, Value];
  // x·x: the factor 2 goes to the gradient, which is often one number a row, and both sides become one product.
  if (a === b) return [builder.mul(builder.mul(gradient, builder.scalar(2)), a), undefined];
  return binary(
    call,
    () => builder.mul(gradient, b),
    () => builder.mul(gradient, a),
  );
};

const divRule: Rule<'div'> = (call) => {
  const { builder, gradient, inputs, outputs } = call;
  const b = inputs[1]!;
  return binary(
    call,
    () => builder.div(gradient, b),
    () => builder.neg(builder.div(builder.mul(gradient, outputs[0]!), b)),
  );
};

const reduceMeanRule: Rule<'reduceMean'> = ({ builder, gradient, inputs, outputs }) => {
  const count = sizeOf(inputs[0]!.shape) / sizeOf(outputs[0]!.shape);
  return [builder.mul(gradient, builder.scalar(1 / count))];
};

const transposeRule: Rule<'transpose'> = (call) => {
  const inverse = call.primitive.perm.map((_, axis) => call.primitive.perm.indexOf(axis));
  return [call.builder.transpose(full(call), inverse)];
};

const concatRule: Rule<'concat'> = (call) => {
  const { axis } = call.primitive;
  const dy = full(call);
  let start = 0;
  return call.inputs.map((part, i) => {
    const end = start + part.shape[axis]!;
    const slice = call.wanted[i] ? call.builder.slice(dy, axis, start, end) : undefined;
    start = end;
    return slice;
  });
};

const softmaxRule: Rule<'softmax'> = (call) => {
  const { builder } = call;
  const y = call.outputs[0]!;
  const weighted = builder.mul(full(call), y);
  const rowTerm = builder.reduceSum(weighted, [y.shape.length - 1]);
  return [builder.sub(weighted, builder.mul(y, rowTerm))];
};

const ropeRule: Rule<'rope'> = (call) => {
  if (call.wanted[1] || call.wanted[2]) throw new GraphError('rope: its angles have no gradient');
  const [, cos, sin] = call.inputs as [Value, Value, Value];
  return [call.builder.rope(full(call), cos, call.builder.neg(sin)), undefined, undefined];
};

const gatherRowsRule: Rule<'gatherRows'> = () => {
  throw new GraphError(
    'gatherRows: no dense gradient of the table; differentiate with respect to the gathered rows and scatter-add them on the host',
  );
};

export const gradientRules: { readonly [K in OpName]: Rule<K> } = {
  input: () => [],
  constant: () => [],
  add: (call) =>
    binary(
      call,
      () => call.gradient,
      () => call.gradient,
    ),
  sub: (call) =>
    binary(
      call,
      () => call.gradient,
      () => call.builder.neg(call.gradient),
    ),
  mul: mulRule,
  div: divRule,
  neg: ({ builder, gradient }) => [builder.neg(gradient)],
  sqrt: ({ builder, gradient, outputs }) => [
    builder.div(builder.mul(gradient, builder.scalar(0.5)), outputs[0]!),
  ],
  reciprocal: ({ builder, gradient, outputs }) => {
    const y = outputs[0]!;
    return [builder.neg(builder.mul(gradient, builder.mul(y, y)))];
  },
  sigmoid: ({ builder, gradient, outputs }) => {
    const y = outputs[0]!;
    return [builder.mul(builder.mul(gradient, y), builder.sub(builder.scalar(1), y))];
  },
  silu: (call) => [call.builder.siluGrad(call.inputs[0]!, full(call))],
  siluGrad: notTwice,
  matmul: matmulRule,
  batchMatmul: batchMatmulRule,
  reshape: (call) => [call.builder.reshape(full(call), call.inputs[0]!.shape)],
  broadcast: (call) => [unbroadcast(call.builder, full(call), call.outputs[0]!.shape, call.inputs[0]!.shape)],
  transpose: transposeRule,
  slice: (call) => {
    const { axis, start, end } = call.primitive;
    return [call.builder.pad(full(call), axis, start, call.inputs[0]!.shape[axis]! - end)];
  },
  pad: (call) => {
    const { axis, before } = call.primitive;
    return [call.builder.slice(full(call), axis, before, before + call.inputs[0]!.shape[axis]!)];
  },
  concat: concatRule,
  reduceSum: ({ gradient }) => [gradient],
  reduceMean: reduceMeanRule,
  softmax: softmaxRule,
  rope: ropeRule,
  gatherRows: gatherRowsRule,
  crossEntropy: (call) => [
    call.builder.crossEntropyGrad(call.inputs[0]!, call.inputs[1]!, full(call)),
    undefined,
  ],
  crossEntropyGrad: notTwice,
  causalAttention: (call) => {
    const [q, k, v] = call.inputs as [Value, Value, Value];
    return call.builder.causalAttentionGrad(q, k, v, call.outputs[0]!, full(call));
  },
  causalAttentionGrad: notTwice,
};

/** Applies the rule of `node`; `gradients` has one entry per output. */
export function applyRule(
  builder: GraphBuilder,
  node: Node,
  gradients: readonly (Value | undefined)[],
  wanted: readonly boolean[],
): readonly (Value | undefined)[] {
  const gradient = must(gradients[0], `${node.primitive.op}: gradient of a secondary output`);
  const rule = gradientRules[node.primitive.op] as Rule<OpName>;
  return rule({
    builder,
    primitive: node.primitive,
    inputs: node.inputs,
    outputs: node.outputs,
    gradient,
    wanted,
  });
}
