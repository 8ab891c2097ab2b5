/**
 * A model cut in two, each half on two real processes, over links of 100 ms round trip and 80 Mb/s that lose one packet of
 * a hundred: training goes on. How often somebody is given up for nothing is told, not judged: it hangs on the machine's load.
 */
import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import { test } from 'node:test';
import { generateKeyPair } from '../../src/identity/keys.ts';
import { statusProtocol } from '../../src/net/protocol.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import { systemClock } from '../../src/platform/nodejs/clock.ts';
import { createLibp2pTransport } from '../../src/platform/nodejs/libp2p-host.ts';
import { toHex } from '../../src/std/bytes.ts';
import { agreedHashes, createHarness, type Harness } from './cluster-harness.ts';

/** Members get stages in turn. */
const drivers = ['node-1', 'node-3'] as const;
const validators = ['node-2', 'node-4'] as const;
const all = [...drivers, ...validators];
const microbatches = 4;
const link = { rttMs: 100, bitsPerSecond: 80e6, loss: 0.01 };

function eventsOf<T extends NodeEvent['type']>(harness: Harness, names: readonly string[], type: T) {
  const isOfType = (event: NodeEvent): event is NodeEvent & { type: T } => event.type === type;
  return names.flatMap((name) => harness.events(name)).filter(isOfType);
}

/**
 * The round trip to each node that is reached by somebody who is told of the first node's relay only, and asks the others
 * where that one says they are.
 */
async function roundTripsMs({ cluster, relays }: Harness): Promise<readonly number[]> {
  const clock = systemClock();
  const stranger = await createLibp2pTransport({
    key: generateKeyPair(),
    listen: [],
    bootstrap: [`/ip4/127.0.0.1/tcp/${relays[0]!.port}`],
    networkId: toHex(cluster.network.networkId),
    clock,
    localSwarm: true,
  });
  try {
    const nodes = cluster.nodes.map(({ nodeId }) => nodeId);
    await new Promise<void>((resolve) => {
      const check = () => nodes.every((node) => stranger.peers().includes(node)) && resolve();
      stranger.onPeerChange(check);
      check();
    });
    const trips: number[] = [];
    for (const node of nodes) {
      const startedMs = performance.now();
      const answer = await stranger.request(node, statusProtocol, new Uint8Array([0x80]));
      assert.ok(answer.ok);
      trips.push(performance.now() - startedMs);
    }
    return trips;
  } finally {
    await stranger.close();
  }
}

test('two stages of two over the internet: rounds close, and no microbatch is lost', async (t) => {
  const harness = await createHarness({
    nodes: 4,
    innerSteps: 4,
    training: { stages: 2, microbatches },
    link,
  });
  try {
    harness.startAll();
    await harness.until('two rounds are closed everywhere', () =>
      all.every((name) => harness.rounds(name).length >= 2),
    );
    assert.ok(agreedHashes(harness, drivers).size >= 2);
    assert.ok(agreedHashes(harness, validators).size >= 2);
    const steps = eventsOf(harness, drivers, 'step');
    assert.ok(steps.length >= 8, `${steps.length} steps`);
    for (const step of steps) assert.equal(step.microbatches, microbatches, 'a microbatch was lost');
    const codes = eventsOf(harness, all, 'failover').map(({ code }) => code);
    const begun = microbatches * steps.length;
    t.diagnostic(
      `${codes.length} given up for nothing in ${begun} microbatches${codes.length > 0 ? `: ${codes}` : ''}`,
    );
    // Nobody knows a way past the relays: not who was told to dial them, and not who was told by a node.
    for (const { addresses } of eventsOf(harness, all, 'started')) assert.equal(addresses.length, 1);
    const trips = await roundTripsMs(harness);
    t.diagnostic(`round trips of ${trips.map((ms) => ms.toFixed(0)).join(', ')} ms`);
    for (const ms of trips) assert.ok(ms >= link.rttMs, `answered after ${ms} ms`);
    for (const relay of harness.relays) {
      const { there, back } = relay.bytesPassed();
      assert.ok(there > 0 && back > 0, 'a relay is passed by');
    }
  } finally {
    await harness.close();
  }
});
