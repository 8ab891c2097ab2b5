import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../../sim/virtual-clock.ts';
import { generateKeyPair } from '../../identity/keys.ts';
import type { NodeId } from '../../net/transport.ts';
import { type Outcome, reject } from '../../std/outcome.ts';
import { encodeHello } from './libp2p-hello.ts';
import { createPeerDirectory, type PeerDirectory } from './libp2p-peers.ts';

const keys = Array.from({ length: 5 }, generateKeyPair);
const idOf = (index: number) => keys[index]!.nodeId;
const indexOf = (peer: NodeId) => keys.findIndex((key) => key.nodeId === peer);

/** Directories that greet each other over links which the test makes and breaks. */
function startDirectories(count: number) {
  const clock = createVirtualClock();
  const introductions: string[] = [];
  const hungUp: string[] = [];
  const penalties: string[] = [];
  const directories: PeerDirectory[] = keys.slice(0, count).map((key, self) =>
    createPeerDirectory({
      clock,
      self: key.nodeId,
      networkId: self === 4 ? 'another' : 'net',
      exchangeHello: (peer, hello): Promise<Outcome<Uint8Array>> =>
        directories[indexOf(peer)]!.answerHello(key.nodeId, hello),
      describe: async (peer) => ({ publicKey: keys[indexOf(peer)]!.publicKey, addresses: [] }),
      onIntroduction: (node) => introductions.push(`${self} hears of ${indexOf(node)}`),
      hangUp: (peer) => hungUp.push(`${self} hangs up on ${indexOf(peer)}`),
      penalize: (peer, code) => penalties.push(`${indexOf(peer)} ${code}`),
    }),
  );
  async function link(a: number, b: number): Promise<void> {
    directories[a]!.connected(idOf(b), true);
    directories[b]!.connected(idOf(a), false);
    directories[a]!.subscriptionsKnown(idOf(b));
    directories[b]!.subscriptionsKnown(idOf(a));
    await clock.advance(300);
  }
  async function unlink(a: number, b: number): Promise<void> {
    directories[a]!.disconnected(idOf(b));
    directories[b]!.disconnected(idOf(a));
    await clock.advance(300);
  }
  return { clock, directories, introductions, hungUp, penalties, link, unlink };
}

const fullMeshes = (directories: readonly PeerDirectory[]) =>
  directories.map((directory) => directory.isFullMesh());

test('a full mesh is seen by all when it is one, and by none when it is not', async () => {
  const { directories, link, unlink } = startDirectories(4);
  for (const [a, b] of [
    [0, 1],
    [0, 2],
    [0, 3],
  ] as const)
    await link(a, b);
  assert.deepEqual(fullMeshes(directories), [false, false, false, false]);
  for (const [a, b] of [
    [1, 2],
    [2, 3],
  ] as const)
    await link(a, b);
  assert.deepEqual(fullMeshes(directories), [false, false, false, false]);
  await link(1, 3);
  assert.deepEqual(fullMeshes(directories), [true, true, true, true]);
  await unlink(0, 2);
  assert.deepEqual(fullMeshes(directories), [false, false, false, false]);
});

test('two nodes are a full mesh, and so is one that a third has left', async () => {
  const { directories, link, unlink } = startDirectories(3);
  await link(0, 1);
  assert.deepEqual(fullMeshes(directories.slice(0, 2)), [true, true]);
  await link(1, 2);
  assert.deepEqual(fullMeshes(directories), [false, false, false]);
  await unlink(1, 2);
  assert.deepEqual(fullMeshes(directories.slice(0, 2)), [true, true]);
});

test('neighbours of neighbours are introduced', async () => {
  const { introductions, link } = startDirectories(3);
  await link(0, 1);
  await link(0, 2);
  assert.deepEqual([...new Set(introductions)].sort(), ['1 hears of 2', '2 hears of 1']);
});

test('a peer is one when it has greeted and its subscriptions are known, and is told once', async () => {
  const { clock, directories } = startDirectories(2);
  const [first] = directories;
  const changes: string[] = [];
  first!.onPeerChange((peer, connected) => changes.push(`${indexOf(peer)} ${connected}`));
  first!.connected(idOf(1), true);
  await clock.advance(300);
  assert.equal(first!.hasGreeted(idOf(1)), true);
  assert.deepEqual(first!.peers(), []);
  first!.subscriptionsKnown(idOf(1));
  first!.subscriptionsKnown(idOf(1));
  assert.deepEqual(first!.peers(), [idOf(1)]);
  first!.disconnected(idOf(1));
  first!.disconnected(idOf(1));
  assert.deepEqual(changes, ['1 true', '1 false']);
});

test('a node of another network is hung up on, without a penalty', async () => {
  const { directories, hungUp, penalties, link } = startDirectories(5);
  await link(0, 4);
  assert.deepEqual(directories[0]!.peers(), []);
  assert.deepEqual(hungUp, ['0 hangs up on 4']);
  assert.deepEqual(penalties, []);
});

test('a greeting that is not answered is tried three times, a malformed one is penalised', async () => {
  const clock = createVirtualClock();
  const hungUp: NodeId[] = [];
  const penalties: string[] = [];
  let greetings = 0;
  const directory = createPeerDirectory({
    clock,
    self: idOf(0),
    networkId: 'net',
    exchangeHello: async () => {
      greetings += 1;
      return reject('stalled');
    },
    describe: async () => null,
    onIntroduction: () => assert.fail('nobody introduces anybody'),
    hangUp: (peer) => hungUp.push(peer),
    penalize: (_peer, code) => penalties.push(code),
  });
  directory.connected(idOf(1), true);
  await clock.advance(10_000);
  assert.equal(greetings, 3);
  assert.deepEqual(hungUp, [idOf(1)]);
  const answer = await directory.answerHello(idOf(2), new Uint8Array([1, 2, 3]));
  assert.equal(answer.ok, false);
  assert.equal(penalties.length, 1);
  assert.equal(
    (await directory.answerHello(idOf(2), encodeHello({ networkId: 'net', neighbours: [] }))).ok,
    true,
  );
});
