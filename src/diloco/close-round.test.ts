/** The outer step of a decided list against a few lines of arithmetic; aggregation rules have tests of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { wholeModel } from '../model/parameters.ts';
import { createSegments, flatLength, type Segment } from '../optim/segments.ts';
import { bytesOf } from '../std/bytes.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import type { AggregatorName } from './aggregation/rules.ts';
import { closeRound, createAggregationMemory } from './close-round.ts';
import { createBlob, headerBytes } from './compression/blob.ts';
import type { DecidedContribution } from './replica.ts';

const kernels = createAggregationMemory();
const learningRate = 0.5;
const momentum = 0.75;

function segmentsOf(): Segment[] {
  const stage = wholeModel(tinyConfig);
  const options = { config: tinyConfig, stage, createMemory: createKernelMemory, embeddingScratchBytes: 0 };
  const segments = createSegments(options);
  for (const { slabs } of segments) {
    slabs.base.fill(1);
    slabs.velocity.fill(0.25);
    slabs.errorFeedback.fill(3);
  }
  return segments;
}
const length = flatLength(segmentsOf());

/** A pseudo-gradient of `value` everywhere, as f32, which loses nothing. */
function contribution(nodeId: string, value: number, batches = 4): DecidedContribution {
  const blob = createBlob('f32', length);
  blob.set(bytesOf(new Float32Array(length).fill(value)), headerBytes);
  return { nodeId, batches, blob };
}

function close(
  contributions: readonly DecidedContribution[],
  { aggregator = 'default' as AggregatorName, own = 'nobody', contributed = false } = {},
) {
  const segments = segmentsOf();
  const rejected = closeRound({
    segments,
    shape: { codec: 'f32', length },
    outer: { compression: 'f32', aggregator, learningRate, momentum },
    request: { round: 0, contributions, ownNodeId: own },
    kernels,
    contributed,
  });
  const all = (name: 'base' | 'velocity' | 'errorFeedback') => {
    const values = new Set(segments.flatMap(({ slabs }) => [...slabs[name]]));
    assert.equal(values.size, 1, `${name} is the same everywhere`);
    return [...values][0]!;
  };
  return {
    base: all('base'),
    velocity: all('velocity'),
    errorFeedback: all('errorFeedback'),
    rejected: rejected.map(({ node, code }) => `${node} ${code}`),
  };
}

/** v ← μ·v + g; w ← w − η·(μ·v + g). */
function nesterov(g: number) {
  const velocity = Math.fround(momentum * 0.25 + g);
  return { velocity, base: 1 - learningRate * (momentum * velocity + g) };
}
const near = (a: number, b: number) => assert.ok(Math.abs(a - b) < 1e-6, `${a} is not ${b}`);

test('the mean of the list moves w_r by one Nesterov step, weighed by the root of the batches', () => {
  const { base, velocity, rejected } = close([contribution('a', 1, 4), contribution('b', 2, 16)], {
    aggregator: 'mean',
  });
  const expected = nesterov((2 * 1 + 4 * 2) / 6);
  near(base, expected.base);
  near(velocity, expected.velocity);
  assert.deepEqual(rejected, []);
});

test('screening comes first, but for the mean, which is the bad example', () => {
  const list = [
    contribution('a', 0.01),
    contribution('b', 0.011),
    contribution('c', 0.012),
    contribution('liar', 11),
  ];
  const screened = close(list);
  assert.deepEqual(screened.rejected, ['liar norm-bound']);
  assert.ok(screened.velocity > 0.1875 + 0.009 && screened.velocity < 0.1875 + 0.013, `${screened.velocity}`);
  const unscreened = close(list, { aggregator: 'mean' });
  assert.deepEqual(unscreened.rejected, []);
  near(unscreened.base, nesterov((0.01 + 0.011 + 0.012 + 11) / 4).base);
});

test('when nothing is left of the list, (w_r, v) stay as they are', () => {
  const { base, velocity, rejected } = close([contribution('a', 0), contribution('b', 1000)]);
  assert.deepEqual([base, velocity], [1, 0.25]);
  assert.deepEqual(rejected.sort(), ['a zero', 'b norm-bound']);
});

test('error feedback: taken in, left out, refused, copied, not contributed', () => {
  const others = [contribution('a', 0.01), contribution('b', 0.011)];
  const after = (list: readonly DecidedContribution[], contributed = true) =>
    close(list, { own: 'own', contributed }).errorFeedback;
  near(after([...others, contribution('own', 0.012)]), 3 - 0.012);
  assert.equal(after(others), 3);
  assert.equal(after([...others, contribution('own', 11)]), 0);
  near(after([contribution('copycat', 0.012), ...others, contribution('own', 0.012)]), 3 - 0.012);
  assert.equal(after([...others, contribution('own', 0.012)], false), 3);
});
