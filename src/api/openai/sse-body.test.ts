/** The pulled stream in virtual time: nothing is made ahead of the reader, and none may stand still for ever. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { virtualClock } from '../../../test/virtual-clock.ts';
import { heartbeatMs, stallMsMax } from './limits.ts';
import { sseBody } from './sse-body.ts';

function setUp(next: () => Promise<string | undefined>) {
  const { clock, advance, timers } = virtualClock();
  const left: string[] = [];
  let asked = 0;
  const body = sseBody(
    {
      next: () => {
        asked += 1;
        return next();
      },
      leave: (reason) => {
        left.push(reason);
        return 'last words';
      },
    },
    clock,
  );
  const bytes = body.getReader();
  const reader = {
    read: async () => {
      const { done, value } = await bytes.read();
      return { done, value: value && new TextDecoder().decode(value) };
    },
    cancel: () => bytes.cancel(),
  };
  return { reader, advance, timers, left, asked: () => asked };
}

test('events come one by one, then the end', async () => {
  const events = ['one', 'two'];
  const { reader, timers, left } = setUp(async () => events.shift());
  assert.deepEqual(await reader.read(), { done: false, value: 'data: one\n\n' });
  assert.deepEqual(await reader.read(), { done: false, value: 'data: two\n\n' });
  assert.deepEqual(await reader.read(), { done: true, value: undefined });
  assert.deepEqual([left, timers.size], [[], 0]);
});

test('silence is broken by a comment, and the event is not lost', async () => {
  const event = Promise.withResolvers<string>();
  const { reader, advance, asked } = setUp(() => event.promise);
  const first = reader.read();
  await advance(heartbeatMs);
  assert.deepEqual(await first, { done: false, value: ': still here\n\n' });
  const second = reader.read();
  await advance(0);
  event.resolve('late');
  assert.deepEqual(await second, { done: false, value: 'data: late\n\n' });
  assert.equal(asked(), 1);
});

test('a reader that takes nothing holds the source back, and loses it in the end', async () => {
  const { reader, advance, left, asked } = setUp(async () => 'more');
  await reader.read();
  await advance(stallMsMax - 1);
  const before = asked();
  assert.equal(before, 1);
  assert.deepEqual(left, []);
  await advance(1);
  assert.deepEqual(left, ['stalled']);
  let rest = '';
  for (let part = await reader.read(); !part.done; part = await reader.read()) rest += part.value;
  assert.equal(asked(), before);
  assert.ok(rest.endsWith('data: last words\n\n'));
});

test('a reader that leaves is noticed, once', async () => {
  const { reader, advance, timers, left } = setUp(async () => 'more');
  await reader.read();
  await reader.cancel();
  await advance(stallMsMax);
  assert.deepEqual([left, timers.size], [['disconnected'], 0]);
});
