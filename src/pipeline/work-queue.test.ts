import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { sleep } from '../std/clock.ts';
import { createWorkQueue, type WorkClass, workClasses } from './work-queue.ts';

function start(depth = 100, concurrency = 1) {
  const clock = createVirtualClock();
  const depthMax = { decode: depth, backward: depth, forward: depth, background: depth };
  const queue = createWorkQueue({ clock, depthMax, concurrency });
  const order: string[] = [];
  const add = (workClass: WorkClass, name: string, ms = 1, signal?: AbortSignal) =>
    queue.run(
      workClass,
      async () => {
        order.push(name);
        await sleep(clock, ms);
        return name;
      },
      signal,
    );
  return { clock, queue, order, add };
}

test('serves by class, and within a class in order', async () => {
  const { clock, order, add, queue } = start();
  const all = [
    add('forward', 'first'),
    add('background', 'z1', 0),
    add('forward', 'f1'),
    add('forward', 'f2'),
    add('backward', 'b1'),
    add('decode', 'd1'),
    add('backward', 'b2'),
  ];
  await clock.advance(100);
  const outcomes = await Promise.all(all);
  assert.deepEqual(
    outcomes.map((outcome) => outcome.ok && outcome.value),
    ['first', 'z1', 'f1', 'f2', 'b1', 'd1', 'b2'],
  );
  assert.deepEqual(
    order.filter((name) => name !== 'z1'),
    ['first', 'd1', 'b1', 'b2', 'f1', 'f2'],
  );
  assert.deepEqual(queue.stats().served, { decode: 1, backward: 2, forward: 3, background: 1 });
});

test('refuses what does not fit, in that class alone, and takes more when there is room', async () => {
  const { clock, add, queue } = start(2);
  const running = add('forward', 'a');
  const waiting = [add('forward', 'b'), add('forward', 'c')];
  const refused = await add('forward', 'd');
  assert.equal(refused.ok ? '' : refused.code, 'busy');
  const other = add('backward', 'e');
  assert.deepEqual(queue.stats().depth, { decode: 0, backward: 1, forward: 2, background: 0 });
  assert.equal(queue.stats().refused, 1);
  await clock.advance(10);
  for (const outcome of await Promise.all([running, ...waiting, other])) assert.ok(outcome.ok);
  const later = add('forward', 'f');
  await clock.advance(10);
  assert.ok((await later).ok);
});

test('a class of depth 0 still has what starts at once', async () => {
  const { clock, add } = start(0);
  const first = add('decode', 'a');
  const second = await add('decode', 'b');
  assert.equal(second.ok ? '' : second.code, 'busy');
  await clock.advance(1);
  assert.ok((await first).ok);
});

test('what is aborted before its turn never starts; afterwards the signal is the task’s own affair', async () => {
  const { clock, order, add, queue } = start();
  const waits = new AbortController();
  const works = new AbortController();
  const working = add('forward', 'works', 10, works.signal);
  const waiting = add('forward', 'waits', 1, waits.signal);
  waits.abort();
  works.abort();
  const aborted = await waiting;
  assert.equal(aborted.ok ? '' : aborted.code, 'aborted');
  assert.equal(queue.stats().depth.forward, 0);
  const late = await add('forward', 'late', 1, waits.signal);
  assert.equal(late.ok ? '' : late.code, 'aborted');
  await clock.advance(20);
  assert.ok((await working).ok);
  assert.deepEqual(order, ['works']);
});

test('a task that throws fails its own caller and nobody else', async () => {
  const { clock, add, queue } = start();
  const thrown = queue.run('forward', async () => {
    throw new Error('broken');
  });
  const thrownAtOnce = queue.run('forward', () => {
    throw new Error('at once');
  });
  const next = add('forward', 'next');
  await assert.rejects(thrown, /broken/);
  await assert.rejects(thrownAtOnce, /at once/);
  await clock.advance(1);
  assert.ok((await next).ok);
  assert.equal(queue.stats().served.forward, 3);
});

test('background gets a tenth of the time while others always wait, whatever its tasks take', async () => {
  for (const [foregroundMs, backgroundMs] of [
    [10, 10],
    [3, 40],
    [50, 1],
    [0.25, 0.25],
  ] as const) {
    const { clock, queue } = start();
    const used: Record<string, number> = { forward: 0, background: 0 };
    const untilMs = clock.nowMs() + 5_000;
    const keepBusy = async (workClass: WorkClass, ms: number) => {
      while (clock.nowMs() < untilMs) {
        await queue.run(workClass, () => sleep(clock, ms));
        used[workClass]! += Math.max(ms, 0.5);
      }
    };
    for (let i = 0; i < 4; i++) {
      void keepBusy('forward', foregroundMs);
      void keepBusy('background', backgroundMs);
    }
    await clock.advance(6_000);
    const share = used.background! / (used.background! + used.forward!);
    assert.ok(share > 0.08 && share < 0.13, `${foregroundMs} and ${backgroundMs} ms: ${share}`);
  }
});

test('background that ran when nothing else waited has no debt', async () => {
  const { clock, order, add } = start();
  const alone = add('background', 'long', 10_000);
  await clock.advance(10_000);
  await alone;
  for (let i = 0; i < 3; i++) void add('forward', `f${i}`, 2_000);
  void add('background', 'short', 1);
  for (let i = 3; i < 9; i++) void add('forward', `f${i}`, 20_000);
  await clock.advance(1_000_000);
  assert.ok(order.indexOf('short') < order.indexOf('f8'), order.join());
});

test('counts the time at work, and no idle time while work waits', async () => {
  const { clock, queue, add } = start();
  await clock.advance(100);
  for (let i = 0; i < 5; i++) void add('forward', String(i), 10);
  await clock.advance(30);
  assert.equal(queue.stats().busyMs, 30);
  assert.equal(queue.stats().running, 1);
  await clock.advance(1_000);
  const { busyMs, idleWithWorkMs, running } = queue.stats();
  assert.deepEqual({ busyMs, idleWithWorkMs, running }, { busyMs: 50, idleWithWorkMs: 0, running: 0 });
});

test('never more at work than allowed, nothing lost, nothing left', async () => {
  const job = fc.record({
    workClass: fc.constantFrom(...workClasses),
    atMs: fc.integer({ min: 0, max: 50 }),
    ms: fc.integer({ min: 0, max: 10 }),
    abortMs: fc.option(fc.integer({ min: 0, max: 80 })),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(job, { maxLength: 30 }),
      fc.integer({ min: 1, max: 3 }),
      fc.integer({ min: 0, max: 4 }),
      async (jobs, concurrency, depth) => {
        const clock = createVirtualClock();
        const depthMax = { decode: depth, backward: depth, forward: depth, background: depth };
        const queue = createWorkQueue({ clock, depthMax, concurrency });
        let atWork = 0;
        let ran = 0;
        const outcomes: Promise<string>[] = jobs.map(async ({ workClass, atMs, ms, abortMs }) => {
          await sleep(clock, atMs);
          const controller = new AbortController();
          if (abortMs !== null) clock.setTimer(abortMs, () => controller.abort());
          const task = async () => {
            atWork += 1;
            ran += 1;
            assert.ok(atWork <= concurrency);
            await sleep(clock, ms);
            atWork -= 1;
          };
          const outcome = await queue.run(workClass, task, controller.signal);
          return outcome.ok ? 'done' : outcome.code;
        });
        await clock.advance(2_000);
        const codes = await Promise.all(outcomes);
        const { served, refused, depth: left, running } = queue.stats();
        assert.equal(codes.filter((code) => code === 'done').length, ran);
        assert.equal(
          workClasses.reduce((sum, one) => sum + served[one], 0),
          ran,
        );
        assert.equal(codes.filter((code) => code === 'busy').length, refused);
        assert.deepEqual(left, { decode: 0, backward: 0, forward: 0, background: 0 });
        assert.equal(running, 0);
      },
    ),
    { numRuns: 40 },
  );
});
