/** Nodes that start again around the end of an epoch, or where their store or state does not fit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { dyingStore } from '../../test/dying-store.ts';
import { createEpochsNetwork, type EpochsNetwork } from '../../test/epochs-network.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { CodedError } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';
import type { EpochsOptions } from './epoch-types.ts';
import { encodeEnvelope } from './epoch-wire.ts';
import { defaultTiming } from './limits.ts';

const view = 3 * defaultTiming.deltaMs;

test('killed at every write around the end of an epoch, then restarted: in the right epoch, no double vote', async () => {
  for (let writes = 1; writes < 40; writes++) {
    const network = createEpochsNetwork(
      [
        [0, 1, 2, 3],
        [0, 1, 2],
        [1, 2, 3, 4],
      ],
      1,
    );
    const store = memoryStore();
    const first = await network.open(1, { store: dyingStore(store, writes, () => network.nodes.delete(1)) });
    for (const index of [0, 2, 3, 4]) await network.open(index);
    await network.run(1);
    await network.decide(2, 50);
    if (network.nodes.delete(1)) void first.epochs.stop();
    const applied = first.positions.at(-1);
    const second = await network.open(1, { store, ...(applied && { applied }) });
    await network.run(1);
    await network.decide(3, 10 * view);
    assert.deepEqual(second.failures, [], `${writes} writes`);
    const { delivered } = network.nodes.get(0)!;
    assert.ok(delivered.length >= 3);
    assert.deepEqual([...first.delivered, ...second.delivered], delivered, `${writes} writes`);
    const said = new Map<string, string>();
    for (const { epoch, message } of network.said) {
      if (message.type !== 'vote') continue;
      const { kind, member, height, blockHash } = message.vote;
      const name = `${epoch} ${kind} of ${member} at ${height}`;
      assert.equal(said.get(name) ?? toHex(blockHash), toHex(blockHash), name);
      said.set(name, toHex(blockHash));
    }
    for (const name of said.keys())
      assert.ok(!name.includes('finalize') || !said.has(name.replace('finalize', 'dummy')));
  }
});

test('a node put back into an epoch where it has voted follows it silently', async () => {
  const network = createEpochsNetwork([[0, 1, 2, 3]]);
  await network.openAll([0, 1, 2, 3]);
  await network.decide(3);
  await network.kill(1);
  network.said.length = 0;
  // Its own votes of epoch 0 may be forgotten: it has been in epoch 1 since.
  await network.open(1, { applied: { epoch: 0, height: 0 }, application: replayed(network) });
  await network.run(1);
  const votes = network.said.filter(
    ({ node, epoch, message }) => node === 1 && epoch === 0 && message.type === 'vote',
  );
  assert.deepEqual(votes, []);
  await network.run(10);
  assert.equal(network.nodes.get(1)!.epochs.status().epoch, 1);
});

function replayed(network: EpochsNetwork): EpochsOptions['application'] {
  let count = 0;
  return {
    propose: async () => undefined,
    validate: async () => false,
    decided: () => void (count += 1),
    nextEpoch: (epoch) => (count >= 2 * (epoch + 1) ? network.nextOf(0, epoch) : undefined),
  };
}

test('a store of another beginning, and an epoch that nobody knows, are clear errors', async () => {
  const network = createEpochsNetwork([[0]]);
  await network.openAll([0]);
  await network.kill(0);
  const foreign = { ...network.start, root: sha256(utf8('another')) };
  const coded = (code: string) => (error: unknown) => error instanceof CodedError && error.code === code;
  await assert.rejects(() => network.open(0, { start: foreign }), coded('consensus-store-foreign'));
  await assert.rejects(() => network.open(0, { applied: { epoch: 3, height: 1 } }), coded('epoch-unknown'));
  await network.stores.get(0)!.put('consensus/epoch/0000000000000000/start', utf8('damage'));
  await assert.rejects(() => network.open(0), coded('consensus-store-damaged'));
});

test('a node whose state differs from what the members certify stops and says so', async () => {
  const network = createEpochsNetwork([[0]]);
  await network.open(0);
  const other = await network.open(5, {
    application: {
      propose: async () => undefined,
      validate: async () => true,
      decided() {},
      nextEpoch: () => ({ members: network.membersIn(0), stateRoot: new Uint8Array(32), timeMs: 0 }),
      failed: (error) => other.failures.push(error),
    },
  });
  await network.run(1);
  await network.decide(2);
  assert.equal(network.nodes.get(0)!.epochs.status().epoch, 1);
  assert.equal((other.failures[0] as CodedError).code, 'epoch-mismatch');
  assert.equal(other.epochs.status().failed, true);
  const again = other.epochs.receive('0', encodeEnvelope(0, new Uint8Array(1)));
  assert.ok(!again.ok && again.code === 'not-running');
});
