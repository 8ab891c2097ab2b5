/** Members that change between epochs: who votes when, what is certified, and who still finds the way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { idealSignatures } from '../../sim/ideal-signatures.ts';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { membersOf, testKeys, testNetwork } from '../../test/consensus-group.ts';
import { equalBytes, toHex, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { CodedError } from '../std/outcome.ts';
import { memoryStore, type Store } from '../std/store.ts';
import { genesisHash } from './block.ts';
import { encodeEpochEnd, epochDomain, isEpochEnd } from './epoch-end.ts';
import type {
  CertifiedStart,
  EpochStart,
  EpochsOptions,
  EpochsReplica,
  NextEpoch,
  Position,
} from './epoch-types.ts';
import { decodeEnvelope, decodeRun, encodeEnvelope, encodeRun } from './epoch-wire.ts';
import { createEpochs } from './epochs.ts';
import { defaultLimits, defaultTiming } from './limits.ts';
import { decodeMessage, type Message } from './messages.ts';
import type { Member } from './types.ts';

const view = 3 * defaultTiming.deltaMs;
const keys = testKeys(6);
const signatures = idealSignatures(keys);
const all = membersOf(keys);

interface TestNode {
  epochs: EpochsReplica;
  readonly delivered: string[];
  readonly positions: Position[];
  readonly began: CertifiedStart[];
  readonly behind: Position[];
  readonly failures: unknown[];
}

interface Said {
  readonly node: number;
  readonly epoch: number;
  readonly message: Message;
}

/** Epoch e is of `lists[e % length]` and ends with its `payloads`-th payload. */
function createNetwork(lists: readonly (readonly number[])[], payloads = 2) {
  const clock = createVirtualClock();
  const stores = new Map<number, Store>();
  const states = new Map<number, [epoch: number, text: string][]>();
  const said: Said[] = [];
  const membersIn = (epoch: number): Member[] => lists[epoch % lists.length]!.map((index) => all[index]!);
  const start: EpochStart = { epoch: 0, members: membersIn(0), root: genesisHash };

  const deliver = (from: number, bytes: Uint8Array) => {
    const envelope = decodeEnvelope(bytes, defaultLimits);
    assert.ok(envelope.ok);
    const { epoch } = envelope.value;
    const decoded = decodeMessage(envelope.value.message, epochDomain(testNetwork, epoch), defaultLimits);
    assert.ok(decoded.ok);
    const { message } = decoded.value;
    said.push({ node: from, epoch, message });
    for (const to of network.nodes.keys()) {
      if (to === from || !network.reaches(from, to, epoch, message)) continue;
      clock.setTimer(1, () => network.nodes.get(to)?.epochs.receive(`${from}`, bytes));
    }
  };

  const network = {
    clock,
    said,
    start,
    membersIn,
    stores,
    nodes: new Map<number, TestNode>(),
    reaches: (_from: number, _to: number, _epoch: number, _message: Message): boolean => true,
    nextOf(index: number, epoch: number): NextEpoch | undefined {
      const state = (states.get(index) ?? []).filter(([of]) => of <= epoch);
      if (state.filter(([of]) => of === epoch).length < payloads) return undefined;
      const stateRoot = sha256(utf8(state.map(([, text]) => text).join()));
      return { members: membersIn(epoch + 1), stateRoot, timeMs: 1_000 * state.length };
    },
    async open(index: number, options: Partial<EpochsOptions> = {}): Promise<TestNode> {
      const store = stores.get(index) ?? memoryStore();
      stores.set(index, store);
      const state = states.get(index) ?? [];
      states.set(index, state);
      const own: TestNode = {
        epochs: undefined!,
        delivered: [],
        positions: [],
        began: [],
        behind: [],
        failures: [],
      };
      own.epochs = await createEpochs({
        networkId: testNetwork,
        start,
        key: keys[index]!,
        clock,
        store,
        signatures,
        broadcast: (bytes) => {
          if (network.nodes.get(index) === own) deliver(index, bytes);
        },
        application: {
          propose: async () => utf8(`${state.length}`),
          validate: async (payload) => equalBytes(payload, utf8(`${state.length}`)),
          decided({ block }, epoch) {
            const text = new TextDecoder().decode(block.payload);
            state.push([epoch, text]);
            own.delivered.push(text);
            own.positions.push({ epoch, height: block.height });
          },
          nextEpoch: (epoch) => network.nextOf(index, epoch),
          began: (begun) => own.began.push(begun),
          behind: (position) => own.behind.push(position),
          failed: (error) => own.failures.push(error),
        },
        ...options,
      });
      network.nodes.set(index, own);
      return own;
    },
    async openAll(indices: readonly number[]) {
      for (const index of indices) await network.open(index);
      await network.run(1);
    },
    async kill(index: number) {
      const own = network.nodes.get(index)!;
      network.nodes.delete(index);
      await own.epochs.stop();
    },
    async decide(count: number, ms = 200) {
      for (let i = 0; i < count; i++) {
        for (const { epochs } of network.nodes.values()) epochs.wake();
        await network.run(ms);
      }
    },
    run: (ms: number) => clock.run(clock.nowMs() + ms),
  };
  return network;
}

const epochsOf = (network: ReturnType<typeof createNetwork>) =>
  [...network.nodes.values()].map(({ epochs }) => epochs.status().epoch);

test('members change with the epoch, and only those of an epoch vote in it', async () => {
  const network = createNetwork([[0, 1, 2, 3], [1, 2, 3, 4], [4]]);
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
  const network = createNetwork([[0, 1, 2, 3]], 1);
  await network.openAll([0, 1, 2, 3]);
  await network.decide(3, 30);
  assert.deepEqual(epochsOf(network), [3, 3, 3, 3]);
  const proposals = network.said.filter(({ message }) => message.type === 'proposal');
  assert.equal(proposals.length, 6);
  assert.ok(!network.said.some(({ message }) => message.type === 'vote' && message.vote.kind === 'dummy'));
});

test('without an end there is one epoch for ever', async () => {
  const network = createNetwork([[0, 1]], Number.POSITIVE_INFINITY);
  await network.openAll([0, 1]);
  await network.decide(20);
  assert.deepEqual(epochsOf(network), [0, 0]);
  assert.equal(network.nodes.get(0)!.delivered.length, 20);
});

test('a wake outlives the end of its epoch', async () => {
  const network = createNetwork([[0, 1, 2, 3]], 1);
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
  const network = createNetwork([[0, 1, 2, 3]], 1);
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

test('who missed the last block of an epoch gets it from those who have gone on', async () => {
  for (const lost of ['finalize', 'everything'] as const) {
    const network = createNetwork([[0, 1, 2, 3]], 1);
    await network.openAll([0, 1, 2, 3]);
    await network.decide(1, 4);
    network.reaches = (_from, to, _epoch, message) =>
      to !== 3 || (lost === 'finalize' && message.type === 'vote' && message.vote.kind !== 'finalize');
    await network.run(100);
    assert.equal(network.nodes.get(0)!.epochs.status().epoch, 1);
    assert.equal(network.nodes.get(3)!.epochs.status().epoch, 0);
    network.reaches = () => true;
    await network.decide(2, 20 * view);
    const laggard = network.nodes.get(3)!;
    assert.deepEqual(laggard.failures, []);
    assert.deepEqual(laggard.delivered, ['0', '1', '2'], lost);
    assert.deepEqual(epochsOf(network), [3, 3, 3, 3]);
  }
});

test('a node that was away takes run after run, and hears when nothing older is left', async () => {
  const network = createNetwork([
    [0, 1, 2, 3],
    [1, 2, 3],
  ]);
  await network.openAll([0, 1, 2, 3]);
  await network.decide(5);
  const away = await network.open(5);
  await network.run(1);
  const helper = network.nodes.get(0)!.epochs;
  const codes: string[] = [];
  for (let i = 0; i < 8; i++) {
    const { epoch, decidedHeight } = away.epochs.status();
    const run = helper.decidedSince({ epoch, height: decidedHeight });
    const decoded = decodeRun(encodeRun(run), testNetwork, defaultLimits);
    assert.ok(decoded.ok);
    const adopted = away.epochs.adopt(decoded.value);
    codes.push(adopted.ok ? 'ok' : adopted.code);
    if (i % 2 === 1) await network.run(10);
  }
  assert.deepEqual(away.delivered, ['0', '1', '2', '3', '4']);
  assert.deepEqual(codes.slice(0, 4), ['ok', 'busy', 'ok', 'busy']);
  await network.kill(5);
  network.stores.delete(5);

  await network.decide(4);
  const late = await network.open(4);
  await network.run(1);
  const run = helper.decidedSince({ epoch: 0, height: 0 });
  assert.ok(run.epoch > 0);
  const adopted = late.epochs.adopt(run);
  assert.ok(!adopted.ok && adopted.code === 'epoch-pruned');
});

test('later epochs spoken of by others make a node ask, at growing intervals', async () => {
  const network = createNetwork([[0]], 1);
  await network.openAll([0, 5]);
  network.reaches = () => false;
  await network.decide(3);
  const observer = network.nodes.get(5)!;
  assert.equal(observer.epochs.status().epoch, 0);
  for (let i = 0; i < 200; i++) {
    const outcome = observer.epochs.receive('0', encodeEnvelope(7, new Uint8Array(9)));
    assert.ok(!outcome.ok && outcome.code === 'later-epoch');
    await network.run(100);
  }
  assert.ok(observer.behind.length > 2 && observer.behind.length < 12, `${observer.behind.length}`);
  assert.deepEqual(observer.behind[0], { epoch: 1, height: 0 });
});

test('the next members may be those who missed the end: a node that wants a decision and has no vote asks', async () => {
  const network = createNetwork([[0], [5]], 1);
  await network.openAll([0, 5]);
  network.reaches = () => false;
  await network.decide(1);
  network.reaches = () => true;
  const next = network.nodes.get(5)!;
  assert.equal(network.nodes.get(0)!.epochs.status().epoch, 1);
  assert.equal(next.epochs.status().epoch, 0);
  await network.run(10 * view);
  assert.ok(next.behind.length > 1 && next.behind.length < 8, `${next.behind.length}`);
  const run = network.nodes.get(0)!.epochs.decidedSince({ epoch: 0, height: 0 });
  assert.ok(next.epochs.adopt(run).ok);
  await network.run(10);
  await network.decide(1);
  assert.equal(next.epochs.status().epoch, 2);
  assert.deepEqual(next.delivered, ['0', '1']);
  assert.deepEqual(network.nodes.get(0)!.delivered, ['0', '1']);
});

test('messages of the next epoch wait for a node that is a little late', async () => {
  const network = createNetwork([[0, 1, 2, 3]], 1);
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

/** Takes `writes` more writes and then neither writes nor answers, as a process that has been killed. */
function dyingStore(inner: Store, writes: number, died: () => void): Store {
  let left = writes;
  const gate = async (write: () => Promise<void>) => {
    if (left-- > 0) return write();
    died();
    return new Promise<void>(() => {});
  };
  return {
    ...inner,
    put: (key, value) => gate(() => inner.put(key, value)),
    delete: (key) => gate(() => inner.delete(key)),
  };
}

test('killed at every write around the end of an epoch, then restarted: in the right epoch, no double vote', async () => {
  for (let writes = 1; writes < 40; writes++) {
    const network = createNetwork(
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
  const network = createNetwork([[0, 1, 2, 3]]);
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

function replayed(network: ReturnType<typeof createNetwork>): EpochsOptions['application'] {
  let count = 0;
  return {
    propose: async () => undefined,
    validate: async () => false,
    decided: () => void (count += 1),
    nextEpoch: (epoch) => (count >= 2 * (epoch + 1) ? network.nextOf(0, epoch) : undefined),
  };
}

test('a store of another beginning, and an epoch that nobody knows, are clear errors', async () => {
  const network = createNetwork([[0]]);
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
  const network = createNetwork([[0]]);
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

test('an application cannot be made to end an epoch by a payload', async () => {
  const network = createNetwork([[0, 1, 2, 3]]);
  const forged = encodeEpochEnd(
    0,
    { members: [all[1]!], stateRoot: new Uint8Array(32), timeMs: 0 },
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
  const network = createNetwork([[0]], 1);
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
