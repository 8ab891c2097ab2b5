/** Whole peers training together in virtual time: what each sees of the rounds, whoever is late, gone, new or wrong. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertOneHistory, createPeerGroup, type GroupPeer, type PeerGroup } from '../../test/peer-group.ts';
import { memoryStore } from '../std/store.ts';

const startAll = async (group: PeerGroup, count: number, options = {}) => {
  const peers: GroupPeer[] = [];
  for (let index = 0; index < count; index++) peers.push(await group.start(index, options));
  return peers;
};
const closedBy = (peer: GroupPeer) => peer.rounds().at(-1)?.round ?? -1;
const allPast = (peers: readonly GroupPeer[], round: number) => () =>
  peers.every((peer) => closedBy(peer) >= round);
const stopAll = async (peers: readonly GroupPeer[]) => {
  for (const peer of peers) await peer.stop();
};
const isAbort = (peer: GroupPeer) =>
  peer.ended && (peer.ended.error === undefined || String(peer.ended.error) === 'Error: stopped');

test('four nodes close rounds together, each contribution counts, and they end after the last round', async () => {
  const group = createPeerGroup(4);
  const peers = await startAll(group, 4, { roundsMax: 3 });
  await group.until('three rounds', () => peers.every((peer) => peer.ended !== undefined));
  assertOneHistory(peers);
  for (const peer of peers) {
    assert.deepEqual(peer.ended, {});
    const rounds = peer.rounds();
    assert.deepEqual(
      rounds.map(({ round }) => round),
      [0, 1, 2],
    );
    for (const { contributions, rejected, trainingLoss, tokens, bytesSent } of rounds) {
      assert.deepEqual([...contributions].sort(), [...group.ids].sort());
      assert.deepEqual(rejected, []);
      assert.ok(trainingLoss !== null && trainingLoss > 0 && trainingLoss < 5);
      assert.equal(tokens, 3 * 16);
      assert.ok(bytesSent > 0);
    }
    assert.equal(peer.events.filter(({ type }) => type === 'warning' || type === 'resync').length, 0);
    assert.equal((await peer.replica.position()).optimizerSteps, 9);
  }
  await stopAll(peers);
});

test('a network of one node needs nobody', async () => {
  const group = createPeerGroup(1);
  const [peer] = await startAll(group, 1, { roundsMax: 2 });
  await group.until('two rounds', () => peer!.ended !== undefined);
  assert.equal(closedBy(peer!), 1);
  await peer!.stop();
});

test('a slow node contributes the steps it managed, and holds nobody up for long', async () => {
  const group = createPeerGroup(4);
  const peers = await startAll(group, 3);
  peers.push(await group.start(3, { stepMs: 2_500 }));
  const slow = peers[3]!;
  await group.until('six rounds', allPast(peers, 5));
  assertOneHistory(peers);
  const batches = slow.events.flatMap((event) => (event.type === 'contribution' ? [event.batches] : []));
  assert.ok(
    batches.some((count) => count < 3 && count > 0),
    `${batches}`,
  );
  assert.ok(peers[0]!.rounds().some(({ contributions }) => contributions.includes(group.ids[3]!)));
  assert.deepEqual(
    slow.events.filter(({ type }) => type === 'resync'),
    [],
  );
  await stopAll(peers);
});

test('one of four dies: the others go on; started again with its store it catches up and contributes', async () => {
  const group = createPeerGroup(4);
  const store = memoryStore();
  const peers = await startAll(group, 3);
  const first = await group.start(3, { store });
  await group.until('two rounds', allPast([...peers, first], 1));
  await first.crash();
  const diedAt = closedBy(peers[0]!);
  await group.until('three rounds without it', allPast(peers, diedAt + 3));
  const again = await group.start(3, { store });
  await group.until('it closes a round again', () => closedBy(again) > diedAt + 2);
  await group.until('and contributes', () => {
    const last = peers[0]!.rounds().at(-1)!;
    return last.round > diedAt + 3 && last.contributions.includes(group.ids[3]!);
  });
  assert.ok(again.events.some((event) => event.type === 'resync' && event.reason === 'behind'));
  assertOneHistory([...peers, first, again]);
  await stopAll([...peers, again]);
});

test('a newcomer without a vote fetches the state, contributes, and is counted', async () => {
  const group = createPeerGroup(5, 4);
  const peers = await startAll(group, 4);
  await group.until('two rounds', allPast(peers, 1));
  const newcomer = await group.start(4);
  await group.until('its contribution counts', () =>
    peers[0]!.rounds().some(({ contributions }) => contributions.includes(group.ids[4]!)),
  );
  await group.until('it closes rounds itself', () => newcomer.rounds().length >= 2);
  assertOneHistory([...peers, newcomer]);
  assert.equal(newcomer.peer.ledger.consensus.status().member, false);
  assert.ok(newcomer.events.some(({ type }) => type === 'resync'));
  await stopAll([...peers, newcomer]);
});

test('a node whose weights are not the agreed ones notices, fetches them, and goes on', async () => {
  const group = createPeerGroup(4);
  const peers = await startAll(group, 4);
  await group.until('two rounds', allPast(peers, 1));
  const odd = peers[2]!;
  // Its outer step goes wrong once, as memory does.
  const { closeRound } = odd.replica;
  let faults = 0;
  Object.assign(odd.replica, {
    closeRound: async (request: Parameters<typeof closeRound>[0]) => {
      if (faults++ > 0) return closeRound(request);
      const contributions = request.contributions.map((one) => ({
        ...one,
        batches: one.nodeId === group.ids[0] ? 1 : one.batches,
      }));
      return closeRound({ ...request, contributions: contributions.slice(0, 2) });
    },
  });
  await group.until('it stands where the others stand', () =>
    odd.events.some((event) => event.type === 'resync' && event.reason === 'diverged'),
  );
  const at = closedBy(odd);
  await group.until('and closes rounds with them', () => closedBy(odd) >= at + 2);
  await group.until('all do', allPast(peers, at + 2));
  const right = new Map(peers[0]!.rounds().map(({ round, stateHash }) => [round, stateHash]));
  const wrong = odd.rounds().filter(({ round, stateHash }) => right.get(round) !== stateHash);
  assert.equal(wrong.length, 1);
  await stopAll(peers);
});

test('a member that contributes garbage, and one that withholds its blob, are refused by name', async () => {
  const group = createPeerGroup(5);
  const peers = await startAll(group, 4);
  const hostile = await group.start(4, {
    steps: (peer) => ({
      contribute: async (round) => {
        const { blob, blobHash } = await peer.options.replica.contribute();
        // Odd rounds: another blob than announced; even ones: bytes that are no contribution.
        if (round % 2 === 1) return { blob, blobHash: '0'.repeat(64) };
        const garbage = blob.map(() => 255);
        const { sha256Hex } = await import('../std/hash.ts');
        return { blob: garbage, blobHash: blobHash && sha256Hex(garbage) };
      },
    }),
  });
  await group.until('four rounds', allPast(peers, 3));
  assertOneHistory([...peers, hostile]);
  for (const { contributions, rejected } of peers[0]!.rounds()) {
    assert.ok(!contributions.includes(group.ids[4]!));
    assert.ok(rejected.every(({ node }) => node === group.ids[4]));
  }
  assert.ok(peers[0]!.rounds().some(({ rejected }) => rejected.length > 0));
  await stopAll([...peers, hostile]);
});

test('stopped in any phase, a node ends at once and leaves no timer that acts', async () => {
  for (const phaseMs of [10, 1500, 3005, 3015]) {
    const group = createPeerGroup(4);
    const peers = await startAll(group, 4);
    await group.net.run(phaseMs);
    for (const peer of peers) {
      const beforeMs = group.net.clock.nowMs();
      await peer.stop();
      assert.ok(isAbort(peer), String(peer.ended?.error));
      assert.ok(group.net.clock.nowMs() - beforeMs <= 1000, 'within the step under way');
    }
    const told = peers.map(({ events }) => events.length);
    const firedBefore = group.net.clock.fired();
    await group.net.run(600_000);
    assert.deepEqual(
      peers.map(({ events }) => events.length),
      told,
    );
    assert.ok(
      group.net.clock.fired() - firedBefore < 100,
      `${group.net.clock.fired() - firedBefore} timers after the end`,
    );
  }
});

test('stopped after it contributed with fewer steps, and started from its snapshot, it goes on', async () => {
  const group = createPeerGroup(3);
  const store = memoryStore();
  const peers = await startAll(group, 2);
  const first = await group.start(2, { store });
  await group.until('a round', allPast([...peers, first], 0));
  // What a snapshot taken while it waits for the decision holds: contributed, with one step of three.
  await group.until('the next round begins', () => first.peer.position.round >= 1);
  await first.crash();
  const { round, step } = await first.replica.position();
  if (step === 0) await first.replica.trainStep.call(undefined, [], 0).catch(() => undefined);
  await group.settle(first.replica.contribute());
  const again = await group.start(2, { store, replica: first.replica });
  await group.until('it closes rounds', () => closedBy(again) >= round + 1);
  assert.equal(again.ended, undefined);
  assertOneHistory([...peers, first, again]);
  await stopAll([...peers, again]);
});

test('nodes that are held up before their first step still make one, so that there is something to decide', async () => {
  const group = createPeerGroup(3);
  const peers = await startAll(group, 3);
  await group.until('two rounds', allPast(peers, 1));
  for (const peer of peers) Object.assign(peer.peer.coordinator, { isLate: () => true });
  const at = closedBy(peers[0]!);
  await group.until('rounds go on', allPast(peers, at + 3));
  await stopAll(peers);
});

test('half of the members cut off: nothing is decided; joined again, all go on with one history', async () => {
  const group = createPeerGroup(4);
  const peers = await startAll(group, 4);
  await group.until('two rounds', allPast(peers, 1));
  group.net.hub.partition([group.ids.slice(0, 2), group.ids.slice(2)]);
  await group.net.run(20_000);
  const at = Math.max(...peers.map(closedBy));
  await group.net.run(60_000);
  assert.ok(
    peers.every((peer) => closedBy(peer) <= at),
    'no half decides',
  );
  group.net.hub.partition(null);
  await group.until('three more rounds', allPast(peers, at + 3));
  assertOneHistory(peers);
  await stopAll(peers);
});
