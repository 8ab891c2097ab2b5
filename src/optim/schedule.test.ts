import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { learningRate } from './schedule.ts';

const options = { peakLearningRate: 2e-3, warmupSteps: 10, totalSteps: 110, floorRatio: 0.1 };

test('warms up linearly, peaks, meets the cosine half way, and stays on the floor', () => {
  assert.equal(learningRate(options, 0), 2e-4);
  assert.equal(learningRate(options, 4), 1e-3);
  assert.equal(learningRate(options, 9), 2e-3);
  assert.equal(learningRate(options, 10), 2e-3);
  assert.ok(Math.abs(learningRate(options, 60) - 2e-3 * 0.55) < 1e-12);
  for (const step of [110, 111, 1_000_000]) assert.ok(Math.abs(learningRate(options, step) - 2e-4) < 1e-15);
});

const schedules = fc.record({
  peakLearningRate: fc.double({ min: 1e-6, max: 1, noNaN: true }),
  warmupSteps: fc.integer({ min: 0, max: 1000 }),
  totalSteps: fc.integer({ min: 1, max: 5000 }),
  floorRatio: fc.double({ min: 0, max: 1, noNaN: true }),
});

test('property: it is that of Math.cos, between floor and peak, and never rises after the warm-up', () => {
  fc.assert(
    fc.property(schedules, fc.integer({ min: 0, max: 10_000 }), (schedule, step) => {
      const { peakLearningRate, warmupSteps, totalSteps, floorRatio } = schedule;
      const rate = learningRate(schedule, step);
      assert.ok(rate > 0 || floorRatio < 1e-9);
      assert.ok(rate <= peakLearningRate * (1 + 1e-12));
      if (step < warmupSteps) return;
      assert.ok(learningRate(schedule, step + 1) <= rate * (1 + 1e-12));
      const progress = Math.min(1, (step - warmupSteps) / Math.max(1, totalSteps - warmupSteps));
      const cosine = 0.5 * (1 + Math.cos(Math.PI * progress));
      const expected = peakLearningRate * (floorRatio + (1 - floorRatio) * cosine);
      assert.ok(Math.abs(rate - expected) <= 1e-9 * peakLearningRate);
    }),
  );
});
