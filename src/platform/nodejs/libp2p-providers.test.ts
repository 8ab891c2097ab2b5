/** Real hosts that are not introduced to each other: one stage's node is found by its record in the DHT. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { generateKeyPair } from '../../identity/keys.ts';
import type { Transport } from '../../net/transport.ts';
import { createStageDirectory } from '../../pipeline/directory.ts';
import { stageTopic } from '../../pipeline/stage-announcement.ts';
import { createStageLookup } from '../../pipeline/stage-lookup.ts';
import { systemClock } from './clock.ts';
import { createLibp2pTransport } from './libp2p-host.ts';
import { systemRandom } from './random.ts';

const clock = systemClock();
const networkId = new Uint8Array(32).fill(3);
const closers: (() => unknown)[] = [];
after(async () => {
  for (const close of closers.reverse()) await close();
});

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 1_000 && !condition(); i++) await pause(20);
  assert.ok(condition(), `waited in vain for ${what}`);
}

/** A host that knows only the given one, and whose stage announcements reach nobody but who asks it. */
async function startNode(bootstrap: readonly string[], dht = true) {
  const key = generateKeyPair();
  const real = await createLibp2pTransport({
    key,
    listen: ['/ip4/127.0.0.1/tcp/0'],
    bootstrap,
    networkId: 'providers',
    clock,
    localSwarm: true,
    dht,
    peersWanted: 0,
  });
  const published: string[] = [];
  const transport: Transport = {
    ...real,
    publish: async (topic, message) => {
      if (topic === stageTopic) published.push(topic);
      else await real.publish(topic, message);
    },
  };
  const directory = createStageDirectory({ networkId, key, transport, clock, random: systemRandom() });
  const lookup = createStageLookup({ directory, transport, clock, keyOf: (stage) => `plan/${stage}` });
  closers.push(
    () => real.close(),
    () => directory.close(),
    () => lookup.close(),
  );
  return { transport, addresses: real.addresses(), directory, lookup, published };
}

test('a node that joins after the last announcement finds the stage in the DHT, and connects', async () => {
  const meeting = await startNode([]);
  const server = await startNode(meeting.addresses);
  const state = { stage: 1, memoryBytes: 1e9, tokensPerSecond: 5, round: 4, accepting: true };
  server.directory.announceSelf(state);
  await until(() => server.published.length > 0, 'the last announcement');
  const caller = await startNode(meeting.addresses);
  await until(() => caller.transport.peers().length === 1, 'the caller to join');
  assert.deepEqual(caller.transport.peers(), [meeting.transport.self]);
  await until(() => caller.lookup.candidates(1).length === 1, 'the record to lead to the node');
  assert.deepEqual(caller.directory.candidates(1), [server.transport.self]);
  assert.equal(caller.directory.of(server.transport.self)?.round, 4);
  assert.ok(caller.transport.peers().includes(server.transport.self));
});

test('without a DHT nobody is found, and nothing is thrown', async () => {
  const { transport } = await startNode([], false);
  await transport.provide('a key');
  assert.deepEqual(await transport.findProviders('a key'), []);
});
