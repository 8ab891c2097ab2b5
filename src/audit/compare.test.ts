/** Distances of states: nearly all by norm, a few elements by a bound of their own. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { cutStages } from '../model/stage-cut.ts';
import { createSegments, flatLength } from '../optim/segments.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { compareStates } from './compare.ts';
import { outlierStepsMax, outliersMax } from './tolerance.ts';

const [stage] = cutStages(tinyConfig, 1);
const segments = createSegments({
  config: tinyConfig,
  stage: stage!,
  createMemory: createKernelMemory,
  embeddingScratchBytes: 0,
});
const flat = flatLength(segments);
const rates = 0.1;
const one = (value: number) => new Float32Array(flat).fill(value);
for (const { slabs } of segments) {
  slabs.weights.fill(1.1);
  slabs.firstMoments.fill(0.5);
  slabs.secondMoments.fill(0.25);
}
const start = { weights: one(1), firstMoments: one(0), secondMoments: one(0) };
const honest = () => ({ weights: one(1.1), firstMoments: one(0.5), secondMoments: one(0.25) });

function distances(claimed: ReturnType<typeof honest>) {
  const leaves = (tensors: ReturnType<typeof honest>) => ({
    weights: [new Uint8Array(tensors.weights.buffer)],
    firstMoments: [new Uint8Array(tensors.firstMoments.buffer)],
    secondMoments: [new Uint8Array(tensors.secondMoments.buffer)],
  });
  const options = { start: leaves(start), claimed: leaves(claimed), epsilon: 1e-8, rates };
  const { disagreement, hasMoved } = compareStates(segments, options);
  return { ...disagreement, hasMoved };
}

test('the same state is no distance, another is that of its norm', () => {
  assert.deepEqual(distances(honest()), {
    update: 0,
    moments: 0,
    direction: 0,
    untrimmed: 0,
    hasMoved: true,
  });
  const off = honest();
  off.weights.fill(1.2);
  const { update, untrimmed, hasMoved } = distances(off);
  const expected = Math.sqrt((flat - outliersMax) / flat);
  assert.ok(Math.abs(update - expected) < 1e-5 && Math.abs(untrimmed - 1) < 1e-5);
  assert.ok(hasMoved);
  assert.equal(distances({ ...honest(), weights: start.weights }).hasMoved, false);
});

test('a few elements may be off by a few steps, not more, and not more of them', () => {
  const off = honest();
  for (let i = 0; i < outliersMax; i++) off.weights[31 * i] = 1.1 + 0.9 * outlierStepsMax * rates;
  const { update, untrimmed } = distances(off);
  assert.ok(update < 1e-6);
  assert.ok(untrimmed > 1e-2);
  off.weights[5] = 1.1 + 0.9 * outlierStepsMax * rates;
  assert.ok(distances(off).update > 1e-2);
  const far = honest();
  far.weights[7] = 1.1 + 1.1 * outlierStepsMax * rates;
  assert.equal(distances(far).update, Number.POSITIVE_INFINITY);
});

test('a second moment made small where it is small shows in the direction', () => {
  segments[0]!.slabs.secondMoments.fill(1e-12, 0, 20);
  const off = honest();
  off.secondMoments.fill(1e-12, 0, 20);
  assert.equal(distances(off).direction, 0);
  off.secondMoments.fill(0, 0, 20);
  assert.equal(distances(off).direction, Number.POSITIVE_INFINITY);
  segments[0]!.slabs.secondMoments.fill(0.25);
});

test('what is no number is infinitely far from one, in both directions', () => {
  for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
    for (const tensor of ['weights', 'firstMoments'] as const) {
      const off = honest();
      off[tensor][3] = value;
      const { update, moments } = distances(off);
      assert.equal(Math.max(update, moments), Number.POSITIVE_INFINITY);
    }
  }
  segments[0]!.slabs.weights[3] = Number.NaN;
  assert.equal(distances(honest()).update, Number.POSITIVE_INFINITY);
  const overflowed = honest();
  overflowed.weights[3] = Number.POSITIVE_INFINITY;
  assert.equal(distances(overflowed).update, 0);
  segments[0]!.slabs.weights[3] = 1.1;
});
