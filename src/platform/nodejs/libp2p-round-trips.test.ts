import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../../sim/virtual-clock.ts';
import { measureRoundTrips } from './libp2p-round-trips.ts';

function start() {
  const clock = createVirtualClock();
  const pings: string[] = [];
  const answers: (number | undefined)[] = [];
  let tell: (peer: string, connected: boolean) => void = () => {};
  const trips = measureRoundTrips({
    clock,
    onPeerChange: (listener) => {
      tell = listener;
      return () => {
        tell = () => {};
      };
    },
    ping: async (peer) => {
      pings.push(peer);
      const tookMs = answers.length > 0 ? answers.shift() : 50;
      if (tookMs === undefined) throw new Error('no answer');
      return tookMs;
    },
  });
  return { clock, trips, pings, answers, tell: (peer: string, connected: boolean) => tell(peer, connected) };
}

test('of a few measurements the least counts; then it is silent for minutes', async () => {
  const { clock, trips, pings, answers, tell } = start();
  answers.push(80, undefined, 21, 30, 25);
  assert.equal(trips.of('a'), undefined);
  tell('a', true);
  await clock.advance(100);
  assert.equal(trips.of('a'), 80);
  await clock.advance(2_000);
  assert.equal(trips.of('a'), 21);
  await clock.advance(35_000);
  assert.deepEqual([trips.of('a'), pings.length], [21, 5]);
  await clock.advance(9 * 60_000);
  assert.equal(pings.length, 5);
});

test('a route that has changed is measured anew: what was measured before does not count for ever', async () => {
  const { clock, trips, pings, tell, answers } = start();
  answers.push(20, 20, 20, 20, 20);
  tell('a', true);
  await clock.advance(35_000);
  assert.equal(trips.of('a'), 20);
  await clock.advance(10 * 60_000);
  assert.equal(trips.of('a'), 20, 'while the new row goes on');
  await clock.advance(35_000);
  assert.equal(trips.of('a'), 50);
  assert.equal(pings.length, 10);
});

test('who leaves is forgotten, and after closing nothing is measured', async () => {
  const { clock, trips, pings, tell } = start();
  tell('a', true);
  await clock.advance(100);
  tell('a', false);
  await clock.advance(5_000);
  assert.deepEqual([trips.of('a'), pings.length], [undefined, 1]);
  tell('b', true);
  await clock.advance(100);
  trips.close();
  tell('c', true);
  await clock.advance(20 * 60_000);
  assert.deepEqual([trips.of('b'), pings], [undefined, ['a', 'b']]);
});

test('a peer that never answers stays unknown', async () => {
  const { clock, trips, answers, tell } = start();
  answers.push(...Array<undefined>(5).fill(undefined));
  tell('a', true);
  await clock.advance(60_000);
  assert.equal(trips.of('a'), undefined);
});
