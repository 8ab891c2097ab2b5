import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock } from './virtual-clock.ts';

test('timers fire in order of time, then of setting, and cancelled ones never', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.nat(50), fc.boolean()), { maxLength: 40 }), async (plan) => {
      const clock = createVirtualClock(0);
      const fired: [number, number][] = [];
      plan.forEach(([delayMs, kept], i) => {
        const cancel = clock.setTimer(delayMs, () => fired.push([clock.nowMs(), i]));
        if (!kept) cancel();
      });
      await clock.run(1_000);
      const expected = plan
        .map(([delayMs, kept], i) => ({ delayMs, kept, i }))
        .filter(({ kept }) => kept)
        .sort((a, b) => a.delayMs - b.delayMs || a.i - b.i)
        .map(({ delayMs, i }) => [delayMs, i]);
      assert.deepEqual(fired, expected);
      assert.equal(clock.nowMs(), 1_000);
    }),
    { numRuns: 30 },
  );
});

test('promises settle between two timers, and real work holds time still', async () => {
  const clock = createVirtualClock(0);
  const seen: string[] = [];
  clock.setTimer(1, async () => {
    for (let i = 0; i < 20; i++) await null;
    seen.push(`promises at ${clock.nowMs()}`);
    await clock.during(new Promise((resolve) => setTimeout(resolve, 5)));
    seen.push(`work at ${clock.nowMs()}`);
  });
  clock.setTimer(2, () => seen.push('next'));
  await clock.run(10, () => seen.includes('next'));
  assert.deepEqual(seen, ['promises at 1', 'work at 1', 'next']);
  assert.equal(clock.nowMs(), 2);
});
