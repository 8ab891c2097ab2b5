/**
 * Checks a graph before anything is lowered or run, and drops what no output needs. Shapes and types are inferred
 * again by replaying every node on a fresh builder, so a node appended by hand cannot claim a shape it does not have.
 */
import { must } from '../std/assert.ts';
import {
  type Graph,
  GraphBuilder,
  GraphError,
  type Node,
  type OpName,
  type PrimitiveOf,
  sameShape,
  type Value,
} from './graph.ts';

type Replay<K extends OpName> = (
  builder: GraphBuilder,
  inputs: readonly Value[],
  primitive: PrimitiveOf<K>,
  outputs: readonly Value[],
) => Value | readonly Value[];

/** One constructor call per primitive: exhaustive, so a new primitive cannot escape verification. */
const replays: { readonly [K in OpName]: Replay<K> } = {
  input: (b, _, { name }, [output]) => b.input(name, output!.dtype, output!.shape),
  constant: (b, _, { data }, [output]) => b.constant(data, output!.shape),
  add: (b, [x, y]) => b.add(x!, y!),
  sub: (b, [x, y]) => b.sub(x!, y!),
  mul: (b, [x, y]) => b.mul(x!, y!),
  div: (b, [x, y]) => b.div(x!, y!),
  neg: (b, [x]) => b.neg(x!),
  sqrt: (b, [x]) => b.sqrt(x!),
  reciprocal: (b, [x]) => b.reciprocal(x!),
  sigmoid: (b, [x]) => b.sigmoid(x!),
  silu: (b, [x]) => b.silu(x!),
  siluGrad: (b, [x, dy]) => b.siluGrad(x!, dy!),
  matmul: (b, [x, y], options) => b.matmul(x!, y!, options),
  batchMatmul: (b, [x, y], options) => b.batchMatmul(x!, y!, options),
  reshape: (b, [x], { shape }) => b.reshape(x!, shape),
  broadcast: (b, [x], { shape }) => b.broadcast(x!, shape),
  transpose: (b, [x], { perm }) => b.transpose(x!, perm),
  slice: (b, [x], { axis, start, end }) => b.slice(x!, axis, start, end),
  pad: (b, [x], { axis, before, after }) => b.pad(x!, axis, before, after),
  concat: (b, parts, { axis }) => b.concat(parts, axis),
  reduceSum: (b, [x], { axes }) => b.reduceSum(x!, axes),
  reduceMean: (b, [x], { axes }) => b.reduceMean(x!, axes),
  softmax: (b, [x]) => b.softmax(x!),
  rope: (b, [x, cos, sin]) => b.rope(x!, cos!, sin!),
  gatherRows: (b, [table, ids]) => b.gatherRows(table!, ids!),
  crossEntropy: (b, [logits, labels]) => b.crossEntropy(logits!, labels!),
  crossEntropyGrad: (b, [logits, labels, dLoss]) => b.crossEntropyGrad(logits!, labels!, dLoss!),
  causalAttention: (b, [q, k, v]) => b.causalAttention(q!, k!, v!),
  causalAttentionGrad: (b, [q, k, v, out, dOut]) => b.causalAttentionGrad(q!, k!, v!, out!, dOut!),
};

/** The nodes that some output needs; every input stays, so that feeds keep their meaning. */
function liveNodes(graph: Graph): Node[] {
  const needed = new Set<Value>(graph.outputs.values());
  const live = new Set<Node>();
  for (const node of [...graph.nodes].reverse()) {
    if (node.primitive.op !== 'input' && !node.outputs.some((output) => needed.has(output))) continue;
    live.add(node);
    for (const input of node.inputs) needed.add(input);
  }
  return graph.nodes.filter((node) => live.has(node));
}

/**
 * The same graph without dead nodes, proved well formed. Throws GraphError on a value assigned twice or used before
 * it is assigned, on wrong shapes or types, on inputs that are not declared as such, and on missing outputs.
 */
export function verify(graph: Graph): Graph {
  if (graph.outputs.size === 0) throw new GraphError('a graph without outputs');
  checkAssignments(graph);
  const builder = new GraphBuilder();
  const copies = new Map<Value, Value>();
  const copyOf = (value: Value) => must(copies.get(value), `value ${value.id} has no copy`);
  for (const node of liveNodes(graph)) {
    const replay = replays[node.primitive.op] as Replay<OpName>;
    const result = replay(builder, node.inputs.map(copyOf), node.primitive, node.outputs);
    const inferred = Array.isArray(result) ? result : [result];
    node.outputs.forEach((claimed, i) => {
      const actual: Value | undefined = inferred[i];
      if (!actual || actual.dtype !== claimed.dtype || !sameShape(actual.shape, claimed.shape)) {
        throw new GraphError(
          `${node.primitive.op}: claims ${claimed.dtype}[${claimed.shape}], is ${actual?.dtype}[${actual?.shape}]`,
        );
      }
      copies.set(claimed, actual);
    });
  }
  return builder.finish(Object.fromEntries([...graph.outputs].map(([name, value]) => [name, copyOf(value)])));
}

/** Single assignment, in order, and names that mean one thing. */
function checkAssignments(graph: Graph): void {
  const assigned = new Set<Value>();
  for (const node of graph.nodes) {
    const { op } = node.primitive;
    for (const input of node.inputs) {
      if (!assigned.has(input)) throw new GraphError(`${op}: uses value ${input.id} before it is assigned`);
    }
    for (const output of node.outputs) {
      if (assigned.has(output)) throw new GraphError(`${op}: assigns value ${output.id} twice`);
      if (graph.values[output.id] !== output)
        throw new GraphError(`${op}: value ${output.id} is not the graph's`);
      assigned.add(output);
    }
    if (op === 'input' && graph.inputs.get(node.primitive.name) !== node.outputs[0]) {
      throw new GraphError(`input ${node.primitive.name} is not declared`);
    }
  }
  for (const [name, value] of graph.inputs) {
    if (!assigned.has(value)) throw new GraphError(`input ${name} has no node`);
  }
  for (const [name, value] of graph.outputs) {
    if (!assigned.has(value)) throw new GraphError(`output ${name} is never assigned`);
    if (graph.inputs.has(name)) throw new GraphError(`${name} names an input and an output`);
  }
}
