/**
 * Lowers a verified graph to an ONNX model: an exhaustive table from primitives to ONNX nodes, and the peephole
 * that turns `x + a·b` into one Gemm. It knows ONNX Runtime's operators and no engine.
 */
import { must } from '../../std/assert.ts';
import {
  broadcastShape,
  type Graph,
  type Node,
  type OpName,
  type PrimitiveOf,
  sameShape,
  type Value,
} from '../graph.ts';
import { Emitter } from './emitter.ts';
import { lowerAttention, lowerAttentionGrad } from './lower-attention.ts';
import type { OnnxModel, OnnxNode, OnnxTensorInfo } from './model.ts';

/** The smallest normal f32: the floor of a probability before its logarithm. */
const smallestNormal = 2 ** -126;

interface LowerCall<K extends OpName> {
  readonly emit: Emitter;
  readonly primitive: PrimitiveOf<K>;
  /** ONNX names of the inputs. */
  readonly names: readonly string[];
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

/** ONNX names of the outputs. */
type Lowering<K extends OpName> = (call: LowerCall<K>) => readonly string[];

function direct<K extends OpName>(opType: string): Lowering<K> {
  return ({ emit, names }) => [emit.op(opType, names)];
}

function gemm(emit: Emitter, names: readonly string[], primitive: PrimitiveOf<'matmul'>): string {
  const { transA, transB } = primitive;
  return emit.op('Gemm', names, { transA: transA ? 1 : 0, transB: transB ? 1 : 0 });
}

const lowerCrossEntropy: Lowering<'crossEntropy'> = ({ emit, names, inputs }) => {
  const [logits, labels] = names as [string, string];
  const count = inputs[1]!.shape[0]!;
  const p = emit.op('Softmax', [logits], { axis: -1 });
  const column = emit.reshape(labels, [count, 1]);
  const chosen = emit.op('GatherElements', [p, column], { axis: 1 });
  const loss = emit.op('Neg', [emit.op('Log', [emit.op('Max', [chosen, emit.scalar(smallestNormal)])])]);
  return [emit.reshape(loss, [count])];
};

const lowerCrossEntropyGrad: Lowering<'crossEntropyGrad'> = ({ emit, names, inputs }) => {
  const [logits, labels, dLoss] = names as [string, string, string];
  const count = inputs[1]!.shape[0]!;
  const p = emit.op('Softmax', [logits], { axis: -1 });
  const column = emit.reshape(labels, [count, 1]);
  const chosen = emit.op('GatherElements', [p, column], { axis: 1 });
  const lowered = emit.op('Sub', [chosen, emit.scalar(1)]);
  const difference = emit.op('ScatterElements', [p, column, lowered], { axis: 1 });
  return [emit.op('Mul', [difference, emit.reshape(dLoss, [count, 1])])];
};

const lowerSiluGrad: Lowering<'siluGrad'> = ({ emit, names }) => {
  // σ·(1 + x − x·σ): the sigmoid and the product are those of the forward pass.
  const [x, dy] = names as [string, string];
  const sigmoid = emit.op('Sigmoid', [x]);
  const y = emit.op('Mul', [x, sigmoid]);
  const bracket = emit.op('Add', [emit.op('Sub', [x, y]), emit.scalar(1)]);
  return [emit.op('Mul', [emit.op('Mul', [sigmoid, bracket]), dy])];
};

const lowerings: { readonly [K in OpName]: Lowering<K> } = {
  input: ({ primitive }) => [primitive.name],
  constant: ({ emit, primitive, outputs }) => [emit.constant(primitive.data, outputs[0]!.shape)],
  add: direct('Add'),
  sub: direct('Sub'),
  mul: direct('Mul'),
  div: direct('Div'),
  neg: direct('Neg'),
  sqrt: direct('Sqrt'),
  reciprocal: direct('Reciprocal'),
  sigmoid: direct('Sigmoid'),
  silu: ({ emit, names }) => [emit.op('Mul', [names[0]!, emit.op('Sigmoid', names)])],
  siluGrad: lowerSiluGrad,
  matmul: ({ emit, names, primitive }) => [gemm(emit, names, primitive)],
  batchMatmul: ({ emit, names, primitive }) => [
    emit.fusedMatmul(names[0]!, names[1]!, {
      transA: primitive.transA,
      transB: primitive.transB,
      alpha: primitive.scale,
    }),
  ],
  reshape: ({ emit, names, primitive }) => [emit.reshape(names[0]!, primitive.shape)],
  broadcast: ({ emit, names, primitive }) => [emit.op('Expand', [names[0]!, emit.ints(primitive.shape)])],
  transpose: ({ emit, names, primitive }) => [emit.op('Transpose', names, { perm: primitive.perm })],
  slice: ({ emit, names, primitive }) => [
    emit.slice(names[0]!, primitive.axis, primitive.start, primitive.end),
  ],
  pad: ({ emit, names, primitive, inputs }) => [
    emit.pad(names[0]!, inputs[0]!.shape.length, primitive.axis, primitive.before, primitive.after),
  ],
  concat: ({ emit, names, primitive }) => [emit.op('Concat', names, { axis: primitive.axis })],
  reduceSum: ({ emit, names, primitive }) => [emit.reduceSum(names[0]!, primitive.axes)],
  reduceMean: ({ emit, names, primitive }) => [
    emit.op('ReduceMean', [names[0]!, emit.ints(primitive.axes)], { keepdims: 1 }),
  ],
  softmax: ({ emit, names }) => [emit.op('Softmax', names, { axis: -1 })],
  rope: ({ emit, names }) => {
    const [x, cos, sin] = names as [string, string, string];
    return [emit.microsoft('RotaryEmbedding', [x, emit.ints([0]), cos, sin], { interleaved: 0 })];
  },
  gatherRows: direct('Gather'),
  crossEntropy: lowerCrossEntropy,
  crossEntropyGrad: lowerCrossEntropyGrad,
  causalAttention: ({ emit, names, inputs }) => {
    const [q, k, v] = names as [string, string, string];
    return [lowerAttention(emit, q, k, v, { q: inputs[0]!.shape, k: inputs[1]!.shape })];
  },
  causalAttentionGrad: ({ emit, names, inputs }) => {
    const [q, k, v, out, dOut] = names as [string, string, string, string, string];
    return lowerAttentionGrad(emit, { q, k, v, out, dOut }, { q: inputs[0]!.shape, k: inputs[1]!.shape });
  },
};

/**
 * For each `add` that becomes a Gemm, the matmul it absorbs: one used nowhere else, with the other operand of the
 * product's shape (or repeating to it), which Gemm takes as its C.
 */
function absorbedMatmuls(graph: Graph): Map<Node, Node> {
  const uses = new Map<Value, number>();
  for (const node of graph.nodes)
    for (const input of node.inputs) uses.set(input, (uses.get(input) ?? 0) + 1);
  for (const output of graph.outputs.values()) uses.set(output, (uses.get(output) ?? 0) + 1);
  const matmuls = new Map<Value, Node>();
  for (const node of graph.nodes) if (node.primitive.op === 'matmul') matmuls.set(node.outputs[0]!, node);
  const absorbed = new Map<Node, Node>();
  for (const node of graph.nodes) {
    if (node.primitive.op !== 'add') continue;
    // The later product of two is absorbed: the earlier one is ready to be its C.
    const candidates = [...node.inputs].sort((a, b) => b.id - a.id);
    const product = candidates.find((value) => matmuls.has(value) && uses.get(value) === 1);
    if (!product || !sameShape(node.outputs[0]!.shape, product.shape)) continue;
    const other = node.inputs[0] === product ? node.inputs[1]! : node.inputs[0]!;
    if (other.shape.length <= 2 && sameShape(broadcastShape(other.shape, product.shape), product.shape)) {
      absorbed.set(node, matmuls.get(product)!);
    }
  }
  return absorbed;
}

/** Every value's ONNX name, with all nodes emitted. */
function emitAll(graph: Graph, emit: Emitter): Map<Value, string> {
  const absorbed = absorbedMatmuls(graph);
  const skipped = new Set(absorbed.values());
  const names = new Map<Value, string>();
  const nameOf = (value: Value) => must(names.get(value), `value ${value.id} has no name`);
  for (const node of graph.nodes) {
    if (skipped.has(node)) continue;
    const product = absorbed.get(node);
    if (product) {
      const other = node.inputs[0] === product.outputs[0] ? node.inputs[1]! : node.inputs[0]!;
      const operands = [...product.inputs, other].map(nameOf);
      names.set(node.outputs[0]!, gemm(emit, operands, product.primitive as PrimitiveOf<'matmul'>));
      continue;
    }
    const lowering = lowerings[node.primitive.op] as Lowering<OpName>;
    const { primitive, inputs, outputs } = node;
    const results = lowering({ emit, primitive, names: inputs.map(nameOf), inputs, outputs });
    outputs.forEach((output, i) => void names.set(output, results[i]!));
  }
  return names;
}

/**
 * The ONNX model of a graph. Outputs carry their graph names; two names for one tensor, or an output that is an
 * input or a constant, pass through Identity.
 */
export function lower(graph: Graph): OnnxModel {
  const emit = new Emitter();
  const names = emitAll(graph, emit);
  const produced = new Set(emit.nodes.flatMap((node) => node.outputs));
  const renamed = new Map<string, string>();
  const identities: OnnxNode[] = [];
  for (const [name, value] of graph.outputs) {
    const internal = names.get(value)!;
    if (produced.has(internal) && !renamed.has(internal)) renamed.set(internal, name);
    else
      identities.push({
        opType: 'Identity',
        domain: '',
        inputs: [internal],
        outputs: [name],
        attributes: {},
      });
  }
  const rename = (name: string) => renamed.get(name) ?? name;
  const nodes = [...emit.nodes, ...identities].map((node) => ({
    ...node,
    inputs: node.inputs.map(rename),
    outputs: node.outputs.map(rename),
  }));
  const info = ([name, { dtype, shape }]: [string, Value]): OnnxTensorInfo => ({ name, dtype, shape });
  return {
    nodes,
    initializers: emit.initializers,
    inputs: [...graph.inputs].map(info),
    outputs: [...graph.outputs].map(info),
  };
}
