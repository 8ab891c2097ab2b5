import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GraphBuilder, type Value } from '../graph.ts';
import { lower } from './lower.ts';
import type { OnnxModel } from './model.ts';

function model(build: (builder: GraphBuilder) => Record<string, Value>): OnnxModel {
  const builder = new GraphBuilder();
  return lower(builder.finish(build(builder)));
}

function count(lowered: OnnxModel, opType: string): number {
  return lowered.nodes.filter((node) => node.opType === opType).length;
}

test('a residual becomes the C of a Gemm', () => {
  const lowered = model((b) => {
    const x = b.input('x', 'f32', [2, 3]);
    const w = b.input('w', 'f32', [3, 3]);
    return { y: b.add(x, b.matmul(x, w, { transB: true })) };
  });
  assert.deepEqual(
    lowered.nodes.map((node) => [node.opType, node.inputs, node.outputs]),
    [['Gemm', ['x', 'w', 'x'], ['y']]],
  );
});

test('a sum of three products is a chain of Gemms', () => {
  const lowered = model((b) => {
    const x = b.input('x', 'f32', [2, 3]);
    const product = (name: string) => b.matmul(x, b.input(name, 'f32', [3, 3]));
    return { y: b.add(b.add(product('a'), product('b')), product('c')) };
  });
  assert.equal(count(lowered, 'Gemm'), 3);
  assert.equal(count(lowered, 'Add'), 0);
});

test('a product used twice, or of another shape than the sum, is not absorbed', () => {
  const twice = model((b) => {
    const x = b.input('x', 'f32', [2, 2]);
    const product = b.matmul(x, x);
    return { y: b.add(x, product), product };
  });
  assert.equal(count(twice, 'Add'), 1);
  const wider = model((b) => {
    const x = b.input('x', 'f32', [1, 2]);
    return { y: b.add(b.input('z', 'f32', [3, 2]), b.matmul(x, b.input('w', 'f32', [2, 2]))) };
  });
  assert.equal(count(wider, 'Add'), 1);
});

test('a loss and its gradient share one softmax', () => {
  const lowered = model((b) => {
    const logits = b.input('logits', 'f32', [4, 9]);
    const labels = b.input('labels', 'i32', [4]);
    const share = b.constant(new Float32Array(4).fill(0.25), [4]);
    return { loss: b.crossEntropy(logits, labels), gradient: b.crossEntropyGrad(logits, labels, share) };
  });
  assert.equal(count(lowered, 'Softmax'), 1);
});

test('attention never scores keys beyond the chunk of the query', () => {
  const lowered = model((b) => {
    const q = b.input('q', 'f32', [1, 2, 300, 4]);
    const k = b.input('k', 'f32', [1, 1, 300, 4]);
    return { y: b.causalAttention(q, k, b.input('v', 'f32', [1, 1, 300, 4])) };
  });
  assert.equal(count(lowered, 'Softmax'), 3);
  const masks = lowered.initializers.filter(({ data }) => data instanceof Float32Array && data.length > 1);
  assert.deepEqual(
    masks.map(({ shape }) => shape.at(-1)),
    [128, 256, 300],
  );
});

test('outputs that are inputs, constants or each other pass through Identity', () => {
  const lowered = model((b) => {
    const x = b.input('x', 'f32', [2]);
    const y = b.neg(x);
    return { x2: x, constant: b.scalar(3), y, y2: y };
  });
  assert.deepEqual(
    lowered.nodes.map((node) => [node.opType, node.inputs, node.outputs]),
    [
      ['Neg', ['x'], ['y']],
      ['Identity', ['x'], ['x2']],
      ['Identity', [lowered.initializers[0]!.name], ['constant']],
      ['Identity', ['y'], ['y2']],
    ],
  );
});
