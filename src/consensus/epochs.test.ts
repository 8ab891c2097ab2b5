/** Members that change between epochs: who votes when, and what is certified. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testNetwork } from '../../test/consensus-group.ts';
import { createEpochsNetwork, epochsOf } from '../../test/epochs-network.ts';
import { utf8 } from '../std/bytes.ts';
import { encodeEpochEnd, epochDomain, isEpochEnd } from './epoch-end.ts';
import { decodeEnvelope, encodeEnvelope } from './epoch-wire.ts';
import { defaultLimits, defaultTiming } from './limits.ts';
import { decodeMessage } from './messages.ts';

const view = 3 * defaultTiming.deltaMs;

test('members change with the epoch, and only those of an epoch vote in it', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3], [1, 2, 3, 4], [4]]);
  await network.openAll([0, 1, 2, 3, 4, 5]);
  await network.decide(7);
  for (const { delivered, failures, began } of network.nodes.values()) {
    assert.deepEqual(failures, []);
    assert.deepEqual(delivered, ['0', '1', '2', '3', '4', '5', '6']);
    assert.deepEqual(
      began.map(({ epoch }) => epoch),
      [1, 2, 3],
    );
  }
  const voters = (epoch: number) => {
    const votes = network.said.filter((one) => one.epoch === epoch && one.message.type === 'vote');
    return [...new Set(votes.map(({ node }) => node))].sort();
  };
  assert.deepEqual([0, 1, 2].map(voters), [[0, 1, 2, 3], [1, 2, 3, 4], [4]]);
  const status = network.nodes.get(5)!.epochs.status();
  assert.equal(status.epoch, 3);
  assert.equal(status.member, false);
  assert.equal(status.toleratedFailures, 1);
  assert.equal(network.nodes.get(0)!.epochs.status().member, true);
  assert.equal(network.nodes.get(4)!.epochs.status().member, false);
});

test('an epoch that changes costs a block of its own, and no time is lost over it', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]], 1);
  await network.openAll([0, 1, 2, 3]);
  await network.decide(3, 30);
  assert.deepEqual(epochsOf(network), [3, 3, 3, 3]);
  const proposals = network.said.filter(({ message }) => message.type === 'proposal');
  assert.equal(proposals.length, 6);
  assert.ok(!network.said.some(({ message }) => message.type === 'vote' && message.vote.kind === 'dummy'));
});

test('without an end there is one epoch for ever', async () => {
  const network = createEpochsNetwork([[0, 1]], Number.POSITIVE_INFINITY);
  await network.openAll([0, 1]);
  await network.decide(20);
  assert.deepEqual(epochsOf(network), [0, 0]);
  assert.equal(network.nodes.get(0)!.delivered.length, 20);
});

test('a wake outlives the end of its epoch', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]], 1);
  await network.openAll([0, 1, 2, 3]);
  // The members of the ending epoch cannot finish it for a while; the wish comes meanwhile.
  network.reaches = (_from, _to, _epoch, message) =>
    !(message.type === 'proposal' && isEpochEnd(message.proposal.block.payload));
  await network.decide(1);
  assert.deepEqual(
    [...network.nodes.values()].map(({ epochs }) => epochs.status().ending),
    [true, true, true, true],
  );
  for (const { epochs } of network.nodes.values()) epochs.wake();
  network.reaches = () => true;
  await network.run(20 * view);
  for (const { delivered } of network.nodes.values()) assert.deepEqual(delivered, ['0', '1']);
});

test('a vote of one epoch is void in another', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]], 1);
  await network.openAll([0, 1, 2, 3]);
  const votes: Uint8Array[] = [];
  const { receive } = network.nodes.get(0)!.epochs;
  Object.assign(network.nodes.get(0)!.epochs, {
    receive(from: string, bytes: Uint8Array) {
      votes.push(bytes);
      return receive(from, bytes);
    },
  });
  await network.decide(1);
  const first = votes.find((bytes) => {
    const envelope = decodeEnvelope(bytes, defaultLimits);
    assert.ok(envelope.ok && envelope.value.epoch === 0);
    const decoded = decodeMessage(envelope.value.message, epochDomain(testNetwork, 0), defaultLimits);
    return decoded.ok && decoded.value.message.type === 'vote';
  })!;
  const envelope = decodeEnvelope(first, defaultLimits);
  assert.ok(envelope.ok);
  const outcome = receive('x', encodeEnvelope(1, envelope.value.message));
  assert.ok(!outcome.ok && outcome.code === 'bad-signature');
});

test('messages of the next epoch wait for a node that is a little late', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]], 1);
  await network.openAll([0, 1, 2, 3]);
  const early: Uint8Array[] = [];
  const held = network.nodes.get(3)!.epochs;
  const { receive } = held;
  let open = false;
  Object.assign(held, {
    receive(from: string, bytes: Uint8Array) {
      const envelope = decodeEnvelope(bytes, defaultLimits);
      const late = envelope.ok && envelope.value.epoch === 0 && network.nodes.get(0)!.epochs.status().ending;
      if (!open && late) return void early.push(bytes);
      return receive(from, bytes);
    },
  });
  await network.decide(2, 40);
  assert.deepEqual(network.nodes.get(0)!.delivered, ['0', '1']);
  assert.equal(held.status().epoch, 0);
  open = true;
  for (const bytes of early) receive('0', bytes);
  await network.run(40);
  assert.deepEqual(network.nodes.get(3)!.delivered, ['0', '1']);
});

test('an application cannot be made to end an epoch by a payload', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]]);
  const forged = encodeEpochEnd(
    0,
    { members: [network.membersIn(0)[1]!], stateRoot: new Uint8Array(32), timeMs: 0 },
    defaultLimits,
  );
  assert.ok(isEpochEnd(forged) && !isEpochEnd(utf8('0')) && !isEpochEnd(new Uint8Array()));
  for (const index of [0, 1, 2, 3]) {
    await network.open(index, {
      application: {
        propose: async () => forged,
        validate: async () => true,
        decided() {},
        nextEpoch: () => undefined,
      },
    });
  }
  await network.run(1);
  await network.decide(2, view);
  assert.ok(!network.said.some(({ message }) => message.type === 'proposal'));
  assert.deepEqual(epochsOf(network), [0, 0, 0, 0]);
});

test('old epochs are forgotten, their ends are kept', async () => {
  const network = createEpochsNetwork([[0]], 1);
  await network.openAll([0]);
  await network.decide(6, 20);
  const store = network.stores.get(0)!;
  const listed = await store.list('consensus/epoch/');
  const epochsWith = (name: string) =>
    listed.filter((key) => key.includes(name)).map((key) => Number(key.split('/')[2]));
  assert.deepEqual(epochsWith('/end'), [0, 1, 2, 3, 4, 5]);
  assert.deepEqual(epochsWith('/start'), [4, 5, 6]);
  assert.ok(Math.min(...epochsWith('/consensus/')) === 4);
  const ends = await network.nodes.get(0)!.epochs.endsSince(1);
  assert.deepEqual(
    ends.map(({ epoch }) => epoch),
    [1, 2, 3, 4, 5],
  );
});
