/**
 * The part of the transport's contract that is about who is there: nodes that come, go, are penalised or close, and who
 * provides what. Run by `transport-contract.ts` for both transports.
 */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import type { ScorePolicy } from '../src/net/peer-score.ts';
import type { Protocol } from '../src/net/protocol.ts';
import { toHex } from '../src/std/bytes.ts';
import {
  clusterOfSuite,
  codeOf,
  echo,
  never,
  type StartCluster,
  type TransportCluster,
} from './transport-cluster.ts';

/** One broken rule is enough. */
const strictPolicy: ScorePolicy = {
  points: {},
  otherPoints: 100,
  healPointsPerMinute: 1,
  refuseAtPoints: 100,
  refuseMs: 1_000,
};

/** In this order: the last one closes a node for good. */
export function testPeers(startCluster: StartCluster, protocol: () => Protocol): void {
  const cluster = clusterOfSuite(startCluster, 3, strictPolicy);
  testAcquaintance(cluster);
  testReturn(cluster, protocol);
  testPenalties(cluster, protocol);
  testClosing(cluster, protocol);
}

function peersOf({ transports }: TransportCluster, index: number): number {
  return transports[index]!.peers().length;
}

/** Whether all three are connected to each other. */
function isFull(cluster: TransportCluster): boolean {
  return [0, 1, 2].every((index) => peersOf(cluster, index) === 2);
}

function testAcquaintance(cluster: () => TransportCluster): void {
  it('knows the other nodes and not itself', () => {
    const ids = cluster().transports.map((transport) => transport.self);
    for (const transport of cluster().transports) {
      assert.deepEqual([...transport.peers()].sort(), ids.filter((id) => id !== transport.self).sort());
    }
  });

  it('measures the round trip to a peer, and knows none of others', async () => {
    const [first, second] = cluster().transports;
    const measured = () => first!.roundTripMs(second!.self);
    await cluster().until(() => measured() !== undefined, 'a measurement');
    assert.ok(measured()! >= 0 && measured()! < 2_000, String(measured()));
    assert.equal(first!.roundTripMs(first!.self), undefined);
    assert.equal(first!.roundTripMs('00'.repeat(32)), undefined);
  });
}

function testReturn(cluster: () => TransportCluster, protocol: () => Protocol): void {
  it('ends requests to a node that dies, and finds it again when it is back', async () => {
    const asked = protocol();
    const changes: string[] = [];
    const stopped = cluster().transports[2]!.self;
    cluster().transports[0]!.onPeerChange((peer, connected) => {
      if (peer === stopped) changes.push(connected ? 'connected' : 'left');
    });
    cluster().transports[2]!.handle(asked, never);
    await cluster().pass(100);
    const outcome = cluster().transports[0]!.request(stopped, asked, new Uint8Array(1));
    await cluster().pass(200);
    await cluster().stop(2);
    assert.equal(codeOf(await cluster().run(outcome)), 'unreachable');
    await cluster().until(
      () => peersOf(cluster(), 0) === 1 && peersOf(cluster(), 1) === 1,
      'the others to notice',
    );
    assert.equal(
      codeOf(await cluster().run(cluster().transports[0]!.request(stopped, asked, new Uint8Array(1)))),
      'unreachable',
    );
    await cluster().restart(2);
    cluster().transports[2]!.handle(asked, echo);
    await cluster().until(() => isFull(cluster()), 'everybody to be connected again');
    await cluster().pass(100);
    assert.equal(
      codeOf(await cluster().run(cluster().transports[0]!.request(stopped, asked, new Uint8Array(1)))),
      'ok',
    );
    assert.deepEqual(changes, ['left', 'connected']);
  });

  it('delivers to a node that came back', async () => {
    const received: string[] = [];
    cluster().transports[2]!.subscribe('back', 100, (_from, message) => {
      received.push(toHex(message));
    });
    await cluster().pass(300);
    await cluster().run(cluster().transports[1]!.publish('back', new Uint8Array([5])));
    await cluster().until(() => received.length === 1, 'the delivery');
    assert.deepEqual(received, ['05']);
  });
}

function testPenalties(cluster: () => TransportCluster, protocol: () => Protocol): void {
  it('disconnects and refuses a penalised peer, and takes it back after a while', async () => {
    const [first, second] = cluster().transports;
    first!.penalize(second!.self, 'bad-signature');
    await cluster().until(
      () => peersOf(cluster(), 0) === 1 && peersOf(cluster(), 1) === 1,
      'the two to part',
    );
    const outcome = await cluster().run(second!.request(first!.self, protocol(), new Uint8Array(1)));
    assert.equal(codeOf(outcome), 'unreachable');
    assert.equal(peersOf(cluster(), 2), 2);
    await cluster().until(() => isFull(cluster()), 'the two to meet again');
  });

  it('scores a peer whose message a subscriber calls invalid', async () => {
    const [first, second] = cluster().transports;
    first!.subscribe('judged', 100, () => false);
    await cluster().pass(300);
    await cluster().run(second!.publish('judged', new Uint8Array([1])));
    await cluster().until(
      () => peersOf(cluster(), 0) === 1 && peersOf(cluster(), 1) === 1,
      'the two to part',
    );
    await cluster().until(() => isFull(cluster()), 'the two to meet again');
  });
}

function testClosing(cluster: () => TransportCluster, protocol: () => Protocol): void {
  it('after closing asks nothing, says nothing, and is gone for the others', async () => {
    const [first, second] = cluster().transports;
    const asked = protocol();
    second!.handle(asked, never);
    await cluster().pass(100);
    const outcome = first!.request(second!.self, asked, new Uint8Array(1));
    await cluster().pass(100);
    await cluster().run(first!.close());
    await cluster().run(first!.close());
    assert.equal(codeOf(await cluster().run(outcome)), 'aborted');
    assert.equal(
      codeOf(await cluster().run(first!.request(second!.self, asked, new Uint8Array(1)))),
      'aborted',
    );
    await cluster().run(first!.publish('nothing', new Uint8Array(1)));
    await cluster().until(
      () => peersOf(cluster(), 1) === 1 && peersOf(cluster(), 2) === 1,
      'the others to notice',
    );
    assert.equal(peersOf(cluster(), 0), 0);
  });
}

export function testProviders(startCluster: StartCluster): void {
  const cluster = clusterOfSuite(startCluster, 3, undefined, { directory: true });
  const find = (index: number, key: string, signal?: AbortSignal) =>
    cluster().run(cluster().transports[index]!.findProviders(key, signal));
  const idOf = (index: number) => cluster().transports[index]!.self;

  it('finds who provides a key, and neither itself nor who provides another', async () => {
    for (const index of [1, 2]) await cluster().run(cluster().transports[index]!.provide('both'));
    await cluster().run(cluster().transports[2]!.provide('other'));
    assert.deepEqual(await find(0, 'both'), [idOf(1), idOf(2)].sort());
    assert.deepEqual(await find(1, 'both'), [idOf(2)]);
    assert.deepEqual(await find(0, 'other'), [idOf(2)]);
    assert.deepEqual(await find(2, 'other'), []);
  });

  it('finds nobody for what nobody provides, nor once the caller has given up', async () => {
    assert.deepEqual(await find(0, 'nothing'), []);
    assert.deepEqual(await find(0, 'both', AbortSignal.abort()), []);
  });

  it('does not find who is gone; one that is closed finds and provides nothing', async () => {
    await cluster().stop(1);
    await cluster().until(() => cluster().transports[0]!.peers().length === 1, 'the others to notice');
    assert.deepEqual(await find(0, 'both'), [idOf(2)]);
    const [first] = cluster().transports;
    await cluster().run(first!.close());
    await cluster().run(first!.provide('late'));
    assert.deepEqual(await find(0, 'both'), []);
    assert.deepEqual(await find(2, 'late'), []);
  });
}
