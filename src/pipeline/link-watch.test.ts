import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import type { Clock } from '../std/clock.ts';
import { createLinkWatch, silenceMsMax, silenceMsMin, watchCall } from './link-watch.ts';

test('a link may be silent for 200 ms, or for its p99.9 gap', () => {
  const links = createLinkWatch({ clock: createVirtualClock() });
  assert.equal(links.silenceMs('a'), silenceMsMin);
  for (let i = 0; i < 100; i++) links.frame('a', 50);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  links.frame('a', 450);
  assert.equal(links.silenceMs('a'), 450);
  assert.equal(links.silenceMs('b'), silenceMsMin);
  // Among more than a thousand, one is beyond the percentile; two are not.
  for (let i = 0; i < 920; i++) links.frame('a', 50);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  links.frame('a', 400);
  assert.equal(links.silenceMs('a'), 400);
});

test('the percentile is that of the last 1,024 gaps, within the bounds', () => {
  const gaps = fc.array(fc.integer({ min: 0, max: 4_000 }), { minLength: 1, maxLength: 1_500 });
  fc.assert(
    fc.property(gaps, (gapsMs) => {
      const links = createLinkWatch({ clock: createVirtualClock() });
      for (const gap of gapsMs) links.frame('a', gap);
      const sorted = gapsMs.slice(-1_024).sort((x, y) => x - y);
      const percentile = sorted[Math.ceil(0.999 * sorted.length) - 1]!;
      assert.equal(links.silenceMs('a'), Math.min(silenceMsMax, Math.max(silenceMsMin, percentile)));
    }),
    { numRuns: 60 },
  );
});

test('gaps that mean nothing change nothing', () => {
  const links = createLinkWatch({ clock: createVirtualClock() });
  for (const gap of [Number.NaN, -1, Number.NEGATIVE_INFINITY]) links.frame('a', gap);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  links.frame('a', Number.POSITIVE_INFINITY);
  assert.equal(links.silenceMs('a'), silenceMsMax);
});

test('a link unused for long is forgotten, and only so many are remembered', async () => {
  const clock = createVirtualClock();
  const links = createLinkWatch({ clock });
  links.frame('a', 1_000);
  await clock.advance(11 * 60_000);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  links.frame('a', 1_000);
  for (let i = 0; i < 1_024; i++) links.frame(`other ${i}`, 300);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  assert.equal(links.silenceMs('other 0'), 300);
});

test('a message may take what its size took before, with a margin that shrinks', () => {
  const links = createLinkWatch({ clock: createVirtualClock() });
  assert.equal(links.transferMs('a', 1_250_000), 1_000);
  assert.equal(links.transferMs('a', 1e9), 10_000);
  links.transfer('a', 100_000, 100);
  assert.equal(links.transferMs('a', 100_000), 300);
  for (let i = 0; i < 50; i++) links.transfer('a', 100_000, 100);
  assert.ok(links.transferMs('a', 100_000) < 101);
  assert.ok(links.transferMs('a', 100) < 101);
  assert.ok(links.transferMs('a', 400_000) <= 404);
  links.transfer('a', 100_000, Number.NaN);
  assert.ok(links.transferMs('a', 100_000) < 101);
});

test('a link never used is waited for as long as its measured round trip makes one loss cost', () => {
  const measured = new Map([
    ['near', 3],
    ['far', 100],
    ['farthest', 1e9],
  ]);
  const clock = createVirtualClock();
  const links = createLinkWatch({ clock, roundTripMs: (node) => measured.get(node) });
  const plain = createLinkWatch({ clock });
  for (const bytes of [0, 100, 1_250_000])
    for (const node of ['near', 'unknown']) {
      assert.equal(links.silenceMs(node), silenceMsMin);
      assert.equal(links.transferMs(node, bytes), plain.transferMs(node, bytes));
    }
  assert.equal(links.silenceMs('far'), 400);
  assert.equal(links.transferMs('far', 0), 100);
  assert.equal(links.transferMs('far', 125_000), 200);
  // A peer that delays its answers is waited for no longer than any.
  assert.ok(links.silenceMs('farthest') <= silenceMsMax);
  assert.equal(links.transferMs('farthest', 0), 500);
  // What the link shows counts as soon as it is more.
  links.frame('far', 700);
  assert.equal(links.silenceMs('far'), 700);
});

test('a round trip measured while the machine was busy is corrected by the first call', () => {
  const links = createLinkWatch({ clock: createVirtualClock(), roundTripMs: () => 60 });
  assert.equal(links.silenceMs('a'), 360);
  links.transfer('a', 1_000, 2);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  links.transfer('a', 1_000, 90);
  assert.equal(links.silenceMs('a'), silenceMsMin);
  // Of a wide link, a first frame is never sooner than its round trip.
  links.transfer('b', 1_000, 90);
  assert.equal(links.silenceMs('b'), 360);
});

function watched(silenceMs = 200, progressMs = 1_000) {
  const clock = createVirtualClock();
  const startMs = clock.nowMs();
  const deaths: string[] = [];
  const watch = watchCall({
    clock,
    silenceMs,
    progressMs,
    onDead: (code) => deaths.push(`${code} at ${clock.nowMs() - startMs}`),
  });
  return { clock, deaths, watch };
}

test('a callee that never speaks is dead after the silence', async () => {
  const { clock, deaths } = watched();
  await clock.advance(5_000);
  assert.deepEqual(deaths, ['silent at 200']);
});

test('a callee is dead one silence after its last frame', async () => {
  const { clock, deaths, watch } = watched();
  for (let i = 1; i <= 5; i++) {
    await clock.advance(70);
    watch.frame(i);
  }
  await clock.advance(5_000);
  assert.deepEqual(deaths, ['silent at 550']);
});

test('a callee that speaks and does not get on is dead, too', async () => {
  const { clock, deaths, watch } = watched();
  for (let i = 0; i < 100; i++) {
    await clock.advance(50);
    watch.frame(i < 4 ? i : [0, 3, Number.NaN][i % 3]!);
  }
  assert.deepEqual(deaths, ['no-progress at 1200']);
});

test('a call that is over is not watched', async () => {
  const { clock, deaths, watch } = watched();
  await clock.advance(150);
  watch.stop();
  watch.frame(1);
  await clock.advance(5_000);
  assert.deepEqual(deaths, []);
});

test('dead exactly at the first silence or stand-still, never earlier, for any trace', async () => {
  const trace = fc.array(fc.record({ gapMs: fc.integer({ min: 0, max: 260 }), moves: fc.boolean() }));
  await fc.assert(
    fc.asyncProperty(trace, async (frames) => {
      const { clock, deaths, watch } = watched();
      let frameAt = 0;
      let progressAt = 0;
      let progress = 0;
      let expected: string | undefined;
      let elapsed = 0;
      // Past the deadlines nothing comes any more.
      for (const { gapMs, moves } of [...frames, { gapMs: 3_000, moves: false }]) {
        elapsed += gapMs;
        const silentAt = frameAt + 200;
        const stuckAt = progressAt + 1_000;
        // A frame at the very deadline comes after the timer.
        if (Math.min(silentAt, stuckAt) <= elapsed && !expected)
          expected = silentAt <= stuckAt ? `silent at ${silentAt}` : `no-progress at ${stuckAt}`;
        await clock.advance(gapMs);
        if (moves || progress === 0) progress += 1;
        if (moves || frameAt === 0) progressAt = elapsed;
        frameAt = elapsed;
        watch.frame(progress);
        if (expected) break;
      }
      assert.deepEqual(deaths, [expected]);
    }),
    { numRuns: 40 },
  );
});

test('a node that was held up itself reads first what the peer sent meanwhile', () => {
  // A clock whose timers fire when told, however late.
  let nowMs = 0;
  let timers: { atMs: number; callback: () => void }[] = [];
  const clock: Clock = {
    nowMs: () => nowMs,
    setTimer: (delayMs, callback) => {
      const timer = { atMs: nowMs + delayMs, callback };
      timers.push(timer);
      return () => {
        timers = timers.filter((one) => one !== timer);
      };
    },
  };
  const fire = (atMs: number) => {
    nowMs = atMs;
    const due = timers.filter((timer) => timer.atMs <= nowMs);
    timers = timers.filter((timer) => timer.atMs > nowMs);
    for (const { callback } of due) callback();
  };
  const deaths: string[] = [];
  const watch = watchCall({
    clock,
    silenceMs: 200,
    progressMs: 10_000,
    onDead: (code) => deaths.push(code),
  });
  fire(900);
  assert.deepEqual(deaths, []);
  watch.frame(1);
  fire(920);
  assert.deepEqual(deaths, []);
  // Late again and again, and nothing came: in the end it is the peer.
  for (let atMs = 2_000; atMs < 8_000; atMs += 1_000) fire(atMs);
  assert.deepEqual(deaths, ['silent']);
});
