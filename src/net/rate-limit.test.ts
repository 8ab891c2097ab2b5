import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { createRateLimiter } from './rate-limit.ts';

test('gives a minute’s worth at once, then the mean rate', async () => {
  const clock = createVirtualClock();
  const limiter = createRateLimiter(clock);
  const takes = (count: number) =>
    Array.from({ length: count }, () => limiter.take('a', 60)).filter(Boolean).length;
  assert.equal(takes(100), 60);
  await clock.advance(999);
  assert.equal(takes(10), 0);
  await clock.advance(1);
  assert.equal(takes(10), 1);
  await clock.advance(10_000);
  assert.equal(takes(100), 10);
  await clock.advance(3_600_000);
  assert.equal(takes(100), 60);
});

test('keys do not take from each other', () => {
  const limiter = createRateLimiter(createVirtualClock());
  assert.equal(limiter.take('a', 1), true);
  assert.equal(limiter.take('a', 1), false);
  assert.equal(limiter.take('b', 1), true);
});

test('remembers a bounded number of keys, the latest used', () => {
  const limiter = createRateLimiter(createVirtualClock(), 2);
  assert.equal(limiter.take('a', 1), true);
  assert.equal(limiter.take('b', 1), true);
  assert.equal(limiter.take('a', 1), false);
  assert.equal(limiter.take('c', 1), true);
  assert.equal(limiter.take('a', 1), false);
  assert.equal(limiter.take('b', 1), true, 'b was forgotten, so it starts afresh');
});

test('in any stretch no more than burst plus rate is given', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.nat({ max: 5_000 }), { maxLength: 30 }),
      fc.integer({ min: 1, max: 120 }),
      async (pauses, rate) => {
        const clock = createVirtualClock();
        const limiter = createRateLimiter(clock);
        let given = 0;
        let elapsedMs = 0;
        for (const pauseMs of pauses) {
          for (let i = 0; i < 20; i++) if (limiter.take('a', rate)) given += 1;
          await clock.advance(pauseMs);
          elapsedMs += pauseMs;
        }
        assert.ok(given <= rate + (elapsedMs * rate) / 60_000 + 1e-6);
      },
    ),
    { numRuns: 50 },
  );
});
