/** Places: never more calls than the transport takes, in order, and nobody waits for a node that was given up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createCallPlaces } from './call-places.ts';

const never = new AbortController().signal;

test('as many as there are, then in the order of asking', async () => {
  const places = createCallPlaces(2);
  const first = await places.take('a', never);
  await places.take('a', never);
  assert.ok(await places.take('b', never), 'another node has places of its own');
  const order: string[] = [];
  const third = places.take('a', never).then((leave) => {
    order.push('third');
    return leave;
  });
  const fourth = places.take('a', never).then(() => order.push('fourth'));
  await new Promise(setImmediate);
  assert.deepEqual(order, []);
  first!();
  first!();
  const leave = await third;
  await new Promise(setImmediate);
  assert.deepEqual(order, ['third'], 'a place is given back once');
  leave!();
  await fourth;
});

test('who waits for a node that was given up, or is told to end, goes away without a place', async () => {
  const places = createCallPlaces(1);
  const leave = await places.take('a', never);
  const dismissed = places.take('a', never);
  const abort = new AbortController();
  const aborted = places.take('a', abort.signal);
  abort.abort();
  assert.equal(await aborted, undefined);
  assert.equal(await places.take('a', abort.signal), undefined);
  places.dismiss('a');
  assert.equal(await dismissed, undefined);
  const next = places.take('a', never);
  leave!();
  assert.ok(await next);
});
