import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createRoundDeadline, createStageDeadlines, median, medianPlusMad } from './deadline.ts';

test('median and spread on hand-made numbers', () => {
  assert.equal(median([3]), 3);
  assert.equal(median([9, 1, 5]), 5);
  assert.equal(median([4, 1, 3, 2]), 2.5);
  assert.equal(medianPlusMad([1, 2, 3, 4, 100], 6), 3 + 6 * 1);
});

test('nothing is known before the first round: the second half gets as long as the first took', () => {
  const deadline = createRoundDeadline();
  assert.equal(deadline.trainingMs(), undefined);
  assert.equal(deadline.collectingMs([], 4), undefined);
  assert.equal(deadline.collectingMs([1000, 1100], 4), undefined, 'half of the members, not more');
  assert.equal(deadline.collectingMs([1200, 1000, 1100], 4), 2 * 1200 + 1500);
  assert.equal(deadline.collectingMs([700], 1), 2 * 700 + 1500);
  deadline.record([]);
  assert.equal(deadline.trainingMs(), undefined, 'an empty round teaches nothing');
});

test('after that it follows what was measured, and forgets', () => {
  const deadline = createRoundDeadline();
  deadline.record([10_000, 10_200, 10_400, 10_200]);
  assert.equal(deadline.trainingMs(), 10_200 + 6 * 100 + 0.25 * 10_200);
  const training = deadline.trainingMs()!;
  assert.equal(deadline.collectingMs([], 4), training + 0.25 * training);
  for (let round = 0; round < 8; round++) deadline.record([1000, 1000, 1000]);
  assert.equal(deadline.trainingMs(), 1250);
  assert.equal(deadline.collectingMs([], 4), 1250 + 1500);
});

test('property: it grows with the times, and no minority of absurd arrivals moves it far', () => {
  const usual = fc.array(fc.double({ min: 900, max: 1100, noNaN: true }), { minLength: 9, maxLength: 24 });
  fc.assert(
    fc.property(usual, fc.double({ min: 0, max: 1e12, noNaN: true }), (arrivals, absurd) => {
      const deadline = createRoundDeadline();
      const outliers = new Array<number>(Math.floor((arrivals.length - 1) / 3)).fill(absurd);
      deadline.record([...arrivals, ...outliers]);
      const trainingMs = deadline.trainingMs()!;
      assert.ok(trainingMs >= 900 && trainingMs <= 1100 + 6 * 200 + 275, `${trainingMs}`);
      const slower = createRoundDeadline();
      slower.record([...arrivals, ...outliers].map((ms) => 2 * ms));
      assert.ok(slower.trainingMs()! >= trainingMs);
    }),
  );
});

test('each stage learns from its own arrivals; one of which nothing is known goes by those of all', () => {
  const deadlines = createStageDeadlines([2, 2, 2]);
  const at = (stage: number, ...times: number[]) => times.map((atMs) => ({ stage, atMs }));
  const first = [...at(0, 1000, 1200), ...at(1, 900)];
  assert.equal(deadlines.collectingMs(0, first), 2 * 1200 + 1500, 'more than half of its members');
  assert.equal(deadlines.collectingMs(2, first), undefined, 'three of six are not more than half of all');
  const more = [...first, ...at(1, 3000)];
  assert.equal(deadlines.collectingMs(2, more), 2 * 3000 + 1500);
  deadlines.record([...at(0, 1000, 1000), ...at(1, 5000, 5000)]);
  assert.equal(deadlines.trainingMs(0), 1250);
  assert.equal(deadlines.trainingMs(1), 6250);
  const ofAll = createRoundDeadline();
  ofAll.record([1000, 1000, 5000, 5000]);
  assert.equal(deadlines.trainingMs(2), ofAll.trainingMs());
  assert.equal(deadlines.collectingMs(2, []), ofAll.collectingMs([], 6));
});
