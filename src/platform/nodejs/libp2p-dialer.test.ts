import assert from 'node:assert/strict';
import { test } from 'node:test';
import { multiaddr } from '@multiformats/multiaddr';
import { createVirtualClock } from '../../../sim/virtual-clock.ts';
import { createDialer } from './libp2p-dialer.ts';

const address = multiaddr('/ip4/127.0.0.1/tcp/4001');

/** A dialer whose dials reach node `n` while `reachable`. */
function startDialer() {
  const clock = createVirtualClock();
  const startMs = clock.nowMs();
  const state = { reachable: false, connected: false };
  const dials: number[] = [];
  const dialer = createDialer({
    clock,
    uniform: () => 0.5,
    pauseMsMin: 100,
    pauseMsMax: 2_000,
    async dial() {
      dials.push(clock.nowMs() - startMs);
      if (!state.reachable) throw new Error('unreachable');
      state.connected = true;
      dialer.connected('n');
      return 'n';
    },
    isConnected: () => state.connected,
  });
  return { clock, state, dials, dialer };
}

test('a bootstrap address is dialled for ever, with growing pauses up to the longest', async () => {
  const { clock, dials, dialer } = startDialer();
  dialer.addBootstrap(address, null);
  await clock.advance(60_000);
  assert.deepEqual(dials.slice(0, 7), [0, 200, 600, 1_400, 3_000, 5_000, 7_000]);
  assert.ok(dials.length > 30);
});

test('once connected nothing is dialled, and when the connection is lost soon again', async () => {
  const { clock, state, dials, dialer } = startDialer();
  state.reachable = true;
  dialer.addBootstrap(address, null);
  await clock.advance(60_000);
  assert.deepEqual(dials, [0]);
  state.connected = false;
  state.reachable = false;
  dialer.disconnected('n');
  await clock.advance(2_000);
  assert.ok(dials.length >= 3 && dials[1]! - 60_000 <= 400, dials.join(' '));
  state.reachable = true;
  await clock.advance(10_000);
  const count = dials.length;
  await clock.advance(60_000);
  assert.equal(dials.length, count);
});

test('a node one has heard of is given up after some failures', async () => {
  const { clock, dials, dialer } = startDialer();
  dialer.addNode('n', [address], 500);
  dialer.addNode('m', [], 0);
  await clock.advance(600_000);
  assert.equal(dials[0], 500);
  assert.equal(dials.length, 11);
  dialer.addNode('n', [address], 0);
  await clock.advance(1);
  assert.equal(dials.length, 12);
});

test('a node that connects before its turn is not dialled', async () => {
  const { clock, state, dials, dialer } = startDialer();
  dialer.addNode('n', [address], 1_000);
  await clock.advance(500);
  state.connected = true;
  dialer.connected('n');
  await clock.advance(60_000);
  assert.deepEqual(dials, []);
});

test('after closing nothing is dialled', async () => {
  const { clock, dials, dialer } = startDialer();
  dialer.addBootstrap(address, null);
  dialer.close();
  dialer.addNode('n', [address], 0);
  await clock.advance(60_000);
  assert.deepEqual(dials, []);
});
