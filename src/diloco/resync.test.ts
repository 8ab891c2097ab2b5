/** Fetching an agreed state from peers of whom some lie, stall, or are elsewhere. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyBatch, tinyReplica, tinySettings } from '../../test/tiny-replica.ts';
import { createVirtualNetwork } from '../../test/virtual-network.ts';
import { stateProtocol } from '../net/protocol.ts';
import { encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import type { StageReplica } from './replica.ts';
import { resynchronise, serveState } from './resync.ts';

const config = { ...tinySettings.config, vocabulary: 9000 };
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

/** A replica one round on, with several leaves of state. */
async function aheadReplica(): Promise<StageReplica> {
  const replica = await tinyReplica({ config });
  await replica.trainStep([tinyBatch(1)], 1e-2);
  const { blob } = await replica.contribute();
  const closed = await replica.closeRound({
    round: 0,
    ownNodeId: 'a',
    contributions: [{ nodeId: 'a', batches: 1, blob }],
  });
  assert.ok(closed.ok);
  return replica;
}

const ahead = await aheadReplica();
const { round, stateHash } = await ahead.position();
const { flatLength, stateLeaves } = await ahead.info();

/** Node 0 is behind; what the others answer is the test's choice. */
async function behind(others: number) {
  const network = createVirtualNetwork(1 + others);
  const penalties: string[] = [];
  network.transports[0]!.penalize = (peer, code) =>
    void penalties.push(`${network.ids.indexOf(peer)} ${code}`);
  const replica = await tinyReplica({ config });
  const fetch = async (
    agreed = { round, stateHash },
    signal = new AbortController().signal,
    ms = 600_000,
  ) => {
    let outcome: Outcome<unknown> | undefined;
    const [transport] = network.transports;
    const peers = transport!.peers();
    const request = {
      transport: transport!,
      stage: 0,
      agreed,
      plan: tinySettings.plan,
      flatLength,
      peers,
      signal,
      counted: false,
    };
    void resynchronise(replica, request).then((value) => (outcome = value));
    await network.clock.run(network.clock.nowMs() + ms, () => outcome !== undefined);
    assert.ok(outcome, 'still waiting');
    return codeOf(outcome);
  };
  const unchanged = async () => assert.equal((await replica.position()).round, 0);
  return { ...network, network, replica, penalties, fetch, unchanged };
}

test('a state of several leaves comes from several peers', async () => {
  assert.ok(stateLeaves >= 4);
  const { transports, replica, fetch } = await behind(2);
  const asked = new Set<string>();
  for (const transport of transports.slice(1)) {
    serveState(
      transport,
      {
        ...ahead,
        readLeaf: (...which) => {
          asked.add(transport.self);
          return ahead.readLeaf(...which);
        },
      },
      0,
    );
  }
  assert.equal(await fetch(), 'accepted');
  assert.equal((await replica.position()).stateHash, stateHash);
  assert.equal(asked.size, 2);
});

test('leaves with a bad proof, another root or garbage come from elsewhere; who sent them is penalised once', async () => {
  const { transports, replica, fetch, penalties } = await behind(4);
  const liars: ((leaf: {
    root: Uint8Array;
    bytes: Uint8Array;
    proof: readonly Uint8Array[];
  }) => Uint8Array)[] = [
    ({ root, bytes, proof }) => encodeCanonical([root, bytes.map((byte) => byte ^ 1), proof]),
    ({ bytes, proof }) => encodeCanonical([new Uint8Array(32), bytes, proof]),
    () => new Uint8Array([0xff]),
  ];
  for (const [i, lie] of liars.entries()) {
    transports[i + 1]!.handle(stateProtocol, async () => accept(lie((await ahead.readLeaf(round, 0))!)));
  }
  serveState(transports[4]!, ahead, 0);
  assert.equal(await fetch(), 'accepted');
  assert.equal((await replica.position()).stateHash, stateHash);
  assert.deepEqual([...new Set(penalties)].sort(), [
    '1 bad-state-leaf',
    '2 bad-state-leaf',
    '3 bad-state-leaf',
  ]);
});

test('peers that stall or are in another round: what is left is asked, and nothing changes when nobody is left', async () => {
  const { transports, fetch, unchanged, penalties } = await behind(2);
  transports[1]!.handle(stateProtocol, () => new Promise(() => {}));
  serveState(transports[2]!, await tinyReplica({ config }), 0);
  assert.equal(await fetch(), 'state-unavailable');
  await unchanged();
  assert.deepEqual(penalties, [], 'being elsewhere is no offence');
  const alone = await behind(0);
  assert.equal(await alone.fetch(), 'state-unavailable');
  await alone.unchanged();
});

test('who holds another stage is asked no more, and not to blame', async () => {
  const { transports, replica, fetch, penalties } = await behind(3);
  let asked = 0;
  for (const transport of transports.slice(1, 3)) {
    const { handle } = transport;
    transport.handle = (protocol, handler) =>
      handle(protocol, (...request) => {
        asked++;
        return handler(...request);
      });
    serveState(transport, ahead, 1);
  }
  serveState(transports[3]!, ahead, 0);
  assert.equal(await fetch(), 'accepted');
  assert.equal((await replica.position()).stateHash, stateHash);
  assert.ok(asked >= 2 && asked <= 8, `${asked} requests: at most those under way at once`);
  assert.deepEqual(penalties, []);
});

test('a state that nobody agreed on is not taken, though its proofs are right', async () => {
  const { transports, fetch, unchanged } = await behind(1);
  serveState(transports[1]!, ahead, 0);
  assert.equal(await fetch({ round, stateHash: '0'.repeat(64) }), 'state-unavailable');
  await unchanged();
});

test('an abort ends it at once', async () => {
  const { transports, clock, fetch, unchanged } = await behind(1);
  transports[1]!.handle(stateProtocol, () => new Promise(() => {}));
  const stop = new AbortController();
  clock.setTimer(5, () => stop.abort());
  assert.equal(await fetch(undefined, stop.signal, 6), 'state-unavailable');
  await unchanged();
});

test('requests that make no sense are answered with codes', async () => {
  const { transports, clock } = await behind(1);
  serveState(transports[1]!, ahead, 0);
  const ask = async (body: Uint8Array) => {
    let code = '';
    void transports[0]!
      .request(transports[1]!.self, stateProtocol, body)
      .then((answer) => (code = codeOf(answer)));
    await clock.run(clock.nowMs() + 10_000, () => code !== '');
    return code;
  };
  assert.equal(await ask(encodeCanonical([round, 0, 0])), 'accepted');
  assert.equal(await ask(encodeCanonical([round, 0, stateLeaves])), 'other-round');
  assert.equal(await ask(encodeCanonical([round + 1, 0, 0])), 'other-round');
  assert.equal(await ask(encodeCanonical([round, 1, 0])), 'wrong-stage');
  for (const wrong of [[round, 0], [round, 0, -1], [0.5, 0, 0], [round, 'a', 0], 'x'])
    assert.equal(await ask(encodeCanonical(wrong)), 'malformed');
});
