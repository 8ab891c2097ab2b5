/**
 * What every `Transport` must do, run against the in-memory one in virtual time and against libp2p over loopback.
 * A cluster hides how its nodes are started and how time passes.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { topicMessageBytesMax } from '../src/net/limits.ts';
import type { Protocol } from '../src/net/protocol.ts';
import type { NodeId, RequestHandler } from '../src/net/transport.ts';
import { toHex } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { accept, reject } from '../src/std/outcome.ts';
import {
  clusterOfSuite,
  codeOf,
  echo,
  never,
  type StartCluster,
  type TransportCluster,
} from './transport-cluster.ts';
import { testCalls } from './transport-contract-calls.ts';
import { testPeers, testProviders } from './transport-contract-peers.ts';

const MiB = 1024 * 1024;

/** Impatient, so that deadlines come within the test. */
const baseProtocol: Protocol = {
  id: '/neuroshard/contract/1',
  requestBytesMax: 2 * MiB,
  responseBytesMax: 2 * MiB,
  timeoutMs: 4_000,
  idleTimeoutMs: 2_000,
  requestsPerMinuteMax: 10_000,
};

let protocolCount = 0;

/** A protocol of its own for each test, so that rates and handlers do not meet. */
function protocol(changes: Partial<Protocol> = {}): Protocol {
  protocolCount += 1;
  return { ...baseProtocol, id: `/neuroshard/contract${protocolCount}/1`, ...changes };
}

function patterned(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = seed >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

export function testTransport(name: string, startCluster: StartCluster): void {
  describe(`${name}: topics`, () => testTopics(startCluster));
  describe(`${name}: requests`, () => testRequests(startCluster));
  describe(`${name}: limits`, () => testLimits(startCluster));
  describe(`${name}: long calls`, () => testCalls(name, startCluster, protocol));
  describe(`${name}: who provides what`, () => testProviders(startCluster));
  describe(`${name}: peers that come and go`, () => testPeers(startCluster, protocol));
}

function testTopics(startCluster: StartCluster): void {
  const cluster = clusterOfSuite(startCluster, 4);

  /** Subscribes everybody and waits until everybody knows. */
  async function subscribeAll(topic: string, bytesMax = 1024) {
    const received = cluster().transports.map(() => [] as string[]);
    const froms = cluster().transports.map(() => [] as NodeId[]);
    const stops = cluster().transports.map((transport, index) =>
      transport.subscribe(topic, bytesMax, (from, message) => {
        received[index]!.push(toHex(message));
        froms[index]!.push(from);
      }),
    );
    await cluster().pass(300);
    return { received, froms, stops };
  }

  it('brings a message to every subscriber once, from its author, and not to the author', async () => {
    const { received, froms } = await subscribeAll('once');
    await cluster().run(cluster().transports[1]!.publish('once', new Uint8Array([1, 2, 3])));
    await cluster().until(() => received.filter((list) => list.length > 0).length === 3, 'three deliveries');
    await cluster().pass(300);
    assert.deepEqual(received, [['010203'], [], ['010203'], ['010203']]);
    for (const index of [0, 2, 3]) assert.deepEqual(froms[index], [cluster().transports[1]!.self]);
  });

  it('takes the same bytes published again as a new message', async () => {
    const { received } = await subscribeAll('again');
    for (let i = 0; i < 2; i++) {
      await cluster().run(cluster().transports[0]!.publish('again', new Uint8Array([7])));
      await cluster().until(() => received[2]!.length === i + 1, `delivery ${i + 1}`);
    }
    assert.deepEqual(received[0], []);
  });

  it('keeps topics apart and stops after unsubscribing', async () => {
    const { received, stops } = await subscribeAll('left');
    const other = await subscribeAll('other');
    stops[3]!();
    await cluster().pass(300);
    await cluster().run(cluster().transports[0]!.publish('left', new Uint8Array([9])));
    await cluster().until(() => received[1]!.length === 1 && received[2]!.length === 1, 'two deliveries');
    await cluster().pass(300);
    assert.deepEqual(received[3], []);
    assert.deepEqual(other.received, [[], [], [], []]);
  });

  it('drops what is longer than the subscriber takes', async () => {
    const { received } = await subscribeAll('short', 10);
    await cluster().run(cluster().transports[0]!.publish('short', new Uint8Array(11)));
    await cluster().run(cluster().transports[0]!.publish('short', new Uint8Array(10)));
    await cluster().until(() => received[1]!.length === 1, 'the short one');
    assert.deepEqual(received[1], ['00'.repeat(10)]);
  });

  it('refuses to publish what no subscriber would take', async () => {
    await assert.rejects(
      cluster().run(cluster().transports[0]!.publish('long', new Uint8Array(topicMessageBytesMax + 1))),
      RangeError,
    );
  });
}

function testRequests(startCluster: StartCluster): void {
  const cluster = clusterOfSuite(startCluster, 2);
  testAnswers(cluster);
  testFailures(cluster);
}

/** Two nodes: the first asks, the second serves. */
function askingOf(cluster: () => TransportCluster) {
  async function serve(served: Protocol, handler: RequestHandler) {
    const stop = cluster().transports[1]!.handle(served, handler);
    await cluster().pass(50);
    return stop;
  }
  const ask = (asked: Protocol, body: Uint8Array, signal?: AbortSignal) =>
    cluster().transports[0]!.request(cluster().transports[1]!.self, asked, body, signal);
  return { serve, ask };
}

function testAnswers(cluster: () => TransportCluster): void {
  const { serve, ask } = askingOf(cluster);

  it('answers, and tells the handler who asks', async () => {
    const asked = protocol();
    const froms: NodeId[] = [];
    await serve(asked, async (from, request) => {
      froms.push(from);
      return accept(request.toReversed());
    });
    const outcome = await cluster().run(ask(asked, new Uint8Array([1, 2, 3])));
    assert.deepEqual(outcome, accept(new Uint8Array([3, 2, 1])));
    assert.deepEqual(froms, [cluster().transports[0]!.self]);
  });

  it('carries empty bodies and bodies of 1 MiB, many at once and intact', async () => {
    const asked = protocol();
    await serve(asked, echo);
    const bodies = [0, 1, MiB, MiB + 17, 70_000, 5, MiB, 300].map((length, seed) => patterned(length, seed));
    const outcomes = await cluster().run(Promise.all(bodies.map((body) => ask(asked, body))));
    for (const [index, outcome] of outcomes.entries()) {
      assert.ok(outcome.ok, `body ${index}: ${codeOf(outcome)}`);
      assert.equal(toHex(sha256(outcome.value)), toHex(sha256(bodies[index]!)));
    }
  });

  it('brings back the handler’s own code, and `failed` when it throws', async () => {
    const asked = protocol();
    await serve(asked, async (_from, request) => {
      if (request.length > 0) throw new Error('a bug');
      return reject('no-such-blob', 'not here');
    });
    assert.deepEqual(await cluster().run(ask(asked, new Uint8Array(0))), reject('no-such-blob', 'not here'));
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'failed');
  });

  it('counts at least the bytes that travel', async () => {
    const asked = protocol();
    await serve(asked, echo);
    const before = cluster().transports.map((transport) => transport.traffic());
    const outcome = await cluster().run(ask(asked, patterned(MiB, 3)));
    assert.equal(codeOf(outcome), 'ok');
    for (const [index, transport] of cluster().transports.entries()) {
      const { bytesSent, bytesReceived } = transport.traffic();
      for (const moved of [
        bytesSent - before[index]!.bytesSent,
        bytesReceived - before[index]!.bytesReceived,
      ]) {
        assert.ok(moved >= MiB && moved < 1.01 * MiB, `${moved} bytes for a body of 1 MiB`);
      }
    }
  });
}

function testFailures(cluster: () => TransportCluster): void {
  const { serve, ask } = askingOf(cluster);

  it('says `unknown-protocol` where nobody answers, also after a handler has left', async () => {
    const asked = protocol();
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'unknown-protocol');
    const stop = await serve(asked, echo);
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'ok');
    stop();
    await cluster().pass(50);
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'unknown-protocol');
  });

  it('says `unreachable` for nodes that are not there, itself included', async () => {
    const [first] = cluster().transports;
    for (const peer of ['00'.repeat(32), first!.self]) {
      assert.equal(
        codeOf(await cluster().run(first!.request(peer, protocol(), new Uint8Array(1)))),
        'unreachable',
      );
    }
  });

  it('says `stalled` when nothing comes for the idle time, and tells the handler to stop', async () => {
    const asked = protocol({ idleTimeoutMs: 200 });
    let stopped = false;
    await serve(asked, (_from, _request, signal) => {
      signal.addEventListener('abort', () => {
        stopped = true;
      });
      return never();
    });
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'stalled');
    await cluster().until(() => stopped, 'the handler’s signal');
  });

  it('says `timeout` when the whole takes too long', async () => {
    const asked = protocol({ timeoutMs: 200 });
    await serve(asked, never);
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))), 'timeout');
  });

  it('says `aborted` when the caller gives up, tells the handler, and goes on with the next', async () => {
    const asked = protocol();
    let stopped = false;
    await serve(asked, async (_from, request, signal) => {
      if (request.length === 0) return accept(request);
      signal.addEventListener('abort', () => {
        stopped = true;
      });
      return never();
    });
    const controller = new AbortController();
    const outcome = ask(asked, new Uint8Array(1), controller.signal);
    await cluster().pass(200);
    controller.abort();
    assert.equal(codeOf(await cluster().run(outcome)), 'aborted');
    await cluster().until(() => stopped, 'the handler’s signal');
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(0)))), 'ok');
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(0), AbortSignal.abort()))), 'aborted');
  });
}

function testLimits(startCluster: StartCluster): void {
  const cluster = clusterOfSuite(startCluster, 2);
  const { serve, ask } = askingOf(cluster);

  it('does not send a request over the limit', async () => {
    const asked = protocol({ requestBytesMax: 100 });
    let asks = 0;
    await serve(asked, async (_from, request) => {
      asks += 1;
      return accept(request);
    });
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(101)))), 'too-large');
    assert.equal(codeOf(await cluster().run(ask(asked, new Uint8Array(100)))), 'ok');
    assert.equal(asks, 1);
  });

  it('does not take a request over the limit from one who sends it all the same', async () => {
    const served = protocol({ requestBytesMax: 100 });
    let asks = 0;
    await serve(served, async (_from, request) => {
      asks += 1;
      return accept(request);
    });
    const outcome = await cluster().run(ask({ ...served, requestBytesMax: 1000 }, new Uint8Array(101)));
    assert.notEqual(codeOf(outcome), 'ok');
    assert.equal(asks, 0);
    assert.equal(codeOf(await cluster().run(ask(served, new Uint8Array(100)))), 'ok');
  });

  it('neither sends nor takes an answer over the limit', async () => {
    const served = protocol({ responseBytesMax: 1000 });
    await serve(served, async () => accept(new Uint8Array(1001)));
    assert.equal(codeOf(await cluster().run(ask(served, new Uint8Array(1)))), 'too-large');
    const larger = protocol({ responseBytesMax: 1000 });
    await serve(larger, async () => accept(new Uint8Array(1000)));
    const outcome = await cluster().run(ask({ ...larger, responseBytesMax: 999 }, new Uint8Array(1)));
    assert.equal(codeOf(outcome), 'too-large');
  });

  it('refuses more requests than one peer may make', async () => {
    const asked = protocol({ requestsPerMinuteMax: 5 });
    await serve(asked, echo);
    const codes: string[] = [];
    for (let i = 0; i < 7; i++) codes.push(codeOf(await cluster().run(ask(asked, new Uint8Array(1)))));
    assert.deepEqual(codes, ['ok', 'ok', 'ok', 'ok', 'ok', 'refused', 'refused']);
  });

  it('refuses more requests at once than one peer may make', async () => {
    const asked = protocol({ idleTimeoutMs: 300 });
    await serve(asked, never);
    const outcomes = await cluster().run(
      Promise.all(Array.from({ length: 70 }, () => ask(asked, new Uint8Array(1)))),
    );
    const codes = outcomes.map(codeOf);
    assert.equal(codes.filter((code) => code === 'refused').length, 6);
    assert.equal(codes.filter((code) => code === 'stalled').length, 64);
  });
}
