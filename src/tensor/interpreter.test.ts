import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engineContract } from '../../test/engine-contract.ts';
import { GraphBuilder } from './graph.ts';
import { createInterpreter, evaluate } from './interpreter.ts';

engineContract('interpreter', createInterpreter);

/** The contract compares engines with this oracle, so the oracle itself meets numbers worked out by hand. */
function outputOf(build: (builder: GraphBuilder) => ReturnType<GraphBuilder['scalar']>): number[] {
  const builder = new GraphBuilder();
  const value = build(builder);
  const graph = builder.finish({ value });
  return [...evaluate(graph, {}).get(value)!.data].map((element) => Number(element.toFixed(6)));
}

test('softmax, cross entropy and their gradient on hand-made numbers', () => {
  const logits = (b: GraphBuilder) => b.constant(Float32Array.of(0, Math.log(3), 1, 1), [2, 2]);
  const labels = (b: GraphBuilder) => b.constant(Int32Array.of(1, 0), [2]);
  assert.deepEqual(
    outputOf((b) => b.softmax(logits(b))),
    [0.25, 0.75, 0.5, 0.5],
  );
  assert.deepEqual(
    outputOf((b) => b.crossEntropy(logits(b), labels(b))),
    [0.287682, Number(Math.LN2.toFixed(6))],
  );
  const dLoss = (b: GraphBuilder) => b.constant(Float32Array.of(1, 2), [2]);
  assert.deepEqual(
    outputOf((b) => b.crossEntropyGrad(logits(b), labels(b), dLoss(b))),
    [0.25, -0.25, -1, 1],
  );
});

test('rope turns pairs of the two halves', () => {
  const value = outputOf((b) =>
    b.rope(
      b.constant(Float32Array.of(1, 2, 3, 4), [1, 1, 1, 4]),
      b.constant(Float32Array.of(0, 1), [1, 2]),
      b.constant(Float32Array.of(1, 0), [1, 2]),
    ),
  );
  assert.deepEqual(value, [-3, 2, 1, 4]);
});

test('causal attention: the first token sees itself, the second the weighted two, heads share keys', () => {
  const value = outputOf((b) =>
    b.causalAttention(
      b.constant(Float32Array.of(5, Math.log(3), -2, 0), [1, 2, 2, 1]),
      b.constant(Float32Array.of(0, 1), [1, 1, 2, 1]),
      b.constant(Float32Array.of(8, 4), [1, 1, 2, 1]),
    ),
  );
  assert.deepEqual(value, [8, 5, 8, 6]);
});

test('transposition, slices, padding and concatenation move elements where they belong', () => {
  const x = (b: GraphBuilder) => b.constant(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
  assert.deepEqual(
    outputOf((b) => b.transpose(x(b), [1, 0])),
    [1, 4, 2, 5, 3, 6],
  );
  assert.deepEqual(
    outputOf((b) => b.slice(x(b), 1, 1, 3)),
    [2, 3, 5, 6],
  );
  assert.deepEqual(
    outputOf((b) => b.pad(x(b), 0, 1, 0)),
    [0, 0, 0, 1, 2, 3, 4, 5, 6],
  );
  assert.deepEqual(
    outputOf((b) => b.concat([x(b), b.slice(x(b), 1, 0, 1)], 1)),
    [1, 2, 3, 1, 4, 5, 6, 4],
  );
  assert.deepEqual(
    outputOf((b) => b.reduceMean(x(b), [0])),
    [2.5, 3.5, 4.5],
  );
});
