import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { allSamples, sampleGraph } from '../../test/primitive-samples.ts';
import { type Graph, GraphBuilder, GraphError, type Node } from './graph.ts';
import { verify } from './verify.ts';

function example(): Graph {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [2, 3]);
  builder.input('unused', 'i32', [4]);
  const y = builder.mul(x, x);
  builder.neg(y);
  return builder.finish({ y: builder.reduceSum(y, [1]) });
}

test('drops dead nodes and keeps every input', () => {
  const verified = verify(example());
  assert.deepEqual(
    verified.nodes.map((node) => node.primitive.op),
    ['input', 'input', 'mul', 'reduceSum'],
  );
  assert.deepEqual([...verified.inputs.keys()], ['x', 'unused']);
  assert.deepEqual(verified.outputs.get('y')!.shape, [2, 1]);
});

test('accepts every sample, and verifying twice changes nothing', () => {
  for (const sample of allSamples) {
    const once = verify(sampleGraph(sample));
    assert.deepEqual(verify(once), once, sample.name);
  }
});

describe('refuses', () => {
  const spoiled: Record<string, [(graph: Graph) => Graph, RegExp]> = {
    'a claimed shape that does not follow': [
      (graph) => {
        const mul = graph.nodes[2]!;
        const output = { ...mul.outputs[0]!, shape: [3, 2] };
        const values = graph.values.map((value) => (value.id === output.id ? output : value));
        const swap = (node: Node): Node => ({
          ...node,
          inputs: node.inputs.map((value) => values[value.id]!),
          outputs: node.outputs.map((value) => values[value.id]!),
        });
        return { ...graph, values, nodes: graph.nodes.map(swap) };
      },
      /mul: claims f32\[3,2\], is f32\[2,3\]/,
    ],
    'a use before its assignment': [
      (graph) => ({ ...graph, nodes: [...graph.nodes].reverse() }),
      /uses value \d+ before/,
    ],
    'a second assignment': [
      (graph) => ({ ...graph, nodes: [...graph.nodes, graph.nodes[2]!] }),
      /mul: assigns value \d+ twice/,
    ],
    'no outputs': [(graph) => ({ ...graph, outputs: new Map() }), /without outputs/],
    'an output never assigned': [
      (graph) => ({ ...graph, outputs: new Map([['z', { id: 99, dtype: 'f32', shape: [] }]]) }),
      /output z is never assigned/,
    ],
    'an undeclared input': [(graph) => ({ ...graph, inputs: new Map() }), /input x is not declared/],
    'a name for an input and an output': [
      (graph) => ({ ...graph, outputs: new Map([['x', graph.outputs.get('y')!]]) }),
      /x names an input and an output/,
    ],
    'unfit operands': [
      (graph) => {
        const nodes = graph.nodes.slice();
        nodes[2] = { ...nodes[2]!, primitive: { op: 'matmul', transA: false, transB: false } };
        return { ...graph, nodes };
      },
      /matmul: unfit operands/,
    ],
  };
  for (const [what, [spoil, message]] of Object.entries(spoiled)) {
    test(what, () => {
      assert.throws(
        () => verify(spoil(example())),
        (error) => error instanceof GraphError && message.test(error.message),
      );
    });
  }
});

test('the builder refuses calls that no graph can contain', () => {
  const builder = new GraphBuilder();
  const x = builder.input('x', 'f32', [2, 3]);
  const ids = builder.input('ids', 'i32', [2]);
  const calls: (() => unknown)[] = [
    () => builder.add(x, builder.constant(new Float32Array(2), [2])),
    () => builder.add(x, ids),
    () => builder.matmul(x, x),
    () => builder.reshape(x, [4]),
    () => builder.broadcast(x, [2, 4]),
    () => builder.transpose(x, [0, 0]),
    () => builder.slice(x, 1, 2, 4),
    () => builder.slice(x, 2, 0, 1),
    () => builder.pad(x, 0, -1, 0),
    () => builder.concat([x, ids], 0),
    () => builder.concat([], 0),
    () => builder.reduceSum(x, []),
    () => builder.reduceSum(x, [2]),
    () => builder.gatherRows(x, x),
    () => builder.crossEntropy(x, x),
    () => builder.causalAttention(x, x, x),
    () => builder.rope(x, x, x),
    () => builder.input('x', 'f32', [1]),
    () => builder.constant(new Float32Array(3), [2]),
    () => builder.input('empty', 'f32', [0]),
  ];
  for (const call of calls) assert.throws(call, GraphError, String(call));
});
