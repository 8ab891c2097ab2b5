/**
 * Proof of work from end to end, in virtual time: nodes train, claim, audit each other by real re-execution and are paid,
 * and the ledger is the same everywhere; whoever withholds its evidence loses what it has.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedDataset } from '../../test/counted-dataset.ts';
import { createPeerGroup, type GroupPeer, type PeerGroup } from '../../test/peer-group.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { accountOf, chainOf, moneyInAll } from '../ledger/money.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import { evidenceProtocol } from '../net/protocol.ts';
import type { Transport } from '../net/transport.ts';
import { toHex } from '../std/bytes.ts';
import { accept, reject } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';

const dataset = await countedDataset('audited', 40);

/** Everything is audited, and paid out as soon as it stands. */
const policy: Partial<LedgerPolicy> = {
  intervalSteps: 3,
  auditRates: [{ below: 1_000, rate: 1_000 }],
  bondProofs: 0,
  vestingFactor: 1,
  auditBlocks: 30,
  epochBlocks: 10,
};

const auditedGroup = (changes: Partial<LedgerPolicy> = {}, stages = 1) =>
  createPeerGroup(4, 4, { stages, microbatches: stages }, { ...policy, ...changes }, dataset);

/** Roots by block: fails as soon as two nodes differ after one block. */
function checkRoots(peers: readonly GroupPeer[]): number {
  const roots = new Map<number, string>();
  for (const { events } of peers) {
    for (const event of events) {
      if (event.type !== 'block') continue;
      assert.equal(
        roots.get(event.number) ?? event.stateRoot,
        event.stateRoot,
        `after block ${event.number}`,
      );
      roots.set(event.number, event.stateRoot);
    }
  }
  return roots.size;
}

function checkSupply({ peer }: GroupPeer): void {
  const state = peer.ledger.state();
  const { minted, burned } = chainOf(state);
  assert.ok(minted > 0n);
  assert.equal(moneyInAll(state), minted - burned);
}

const balances = ({ peer }: GroupPeer, group: PeerGroup) =>
  group.ids.map((id) => accountOf(peer.ledger.state(), id).balance);
const warnings = (peer: GroupPeer) =>
  peer.events.flatMap((event) => (event.type === 'warning' ? [`${event.code}: ${event.detail}`] : []));

test('balances grow from audited proofs; one of four stops, and the ledger goes on; back again it has the same root', async () => {
  const group = auditedGroup();
  const store = memoryStore();
  const peers = [
    await group.start(0, { audits: true }),
    await group.start(1, { audits: true }),
    await group.start(2, { audits: true }),
  ];
  const fourth = await group.start(3, { audits: true, store });
  const all = [...peers, fourth];
  await group.until('everybody is paid', () => balances(peers[0]!, group).every((amount) => amount > 9_000n));
  assert.ok(checkRoots(all) >= 5);
  for (const one of all) checkSupply(one);
  const audits = all.flatMap(({ events }) => events.filter((event) => event.type === 'audit'));
  assert.ok(audits.length >= 8);
  for (const audit of audits) assert.equal(audit.type === 'audit' && audit.code, 'valid');
  assert.deepEqual(peers[0]!.peer.ledger.state().keys('slash'), []);
  assert.equal(fourth.peer.ledger.consensus.status().toleratedFailures, 1);

  await fourth.stop();
  const before = peers[0]!.peer.ledger.head().number;
  await group.until('it goes on without one', () =>
    peers.every(({ peer }) => peer.ledger.head().number >= before + 8),
  );
  const again = await group.start(3, { audits: true, store });
  assert.ok(again.peer.ledger.head().number <= before + 1, 'from where it was');
  await group.until(
    'it has caught up',
    () => again.peer.ledger.head().number === peers[0]!.peer.ledger.head().number,
  );
  const after = again.peer.ledger.head().number;
  await group.until('and goes on', () => again.peer.ledger.head().number >= after + 3);
  checkRoots([...all, again]);
  checkSupply(again);
  const grown = balances(again, group);
  assert.ok(grown.every((amount) => amount > 9_000n));
  for (const peer of [...peers, again]) await peer.stop();
});

test('who withholds its evidence is slashed, by name and reason, and the others are not', async () => {
  const group = auditedGroup();
  const silent = (honest: Transport): Transport => ({
    ...honest,
    handle: (protocol, handler) =>
      honest.handle(protocol, protocol.id === evidenceProtocol.id ? async () => reject('no') : handler),
  });
  const peers: GroupPeer[] = [];
  for (let index = 0; index < 3; index++) peers.push(await group.start(index, { audits: true }));
  peers.push(await group.start(3, { audits: true, transport: silent }));
  const guilty = group.ids[3]!;
  await group.until(
    'it is slashed',
    () => peers.every(({ peer }) => peer.ledger.state().get('prover', guilty)?.convicted),
    900_000,
  );
  const state = peers[0]!.peer.ledger.state();
  const slashed = state.keys('slash').map((key) => state.get('slash', key)!);
  assert.deepEqual(
    slashed.map(({ node, reason }) => [node, reason]),
    [[guilty, 'withheld-evidence']],
  );
  const told = peers[1]!.events.findLast((event) => event.type === 'block');
  assert.ok(told?.type === 'block' && told.slashed.some(({ node }) => node === guilty));
  checkRoots(peers);
  for (const one of peers) checkSupply(one);
  for (const peer of peers) await peer.stop();
});

test('a slow prover is not said to withhold: auditors wait as long as there are blocks to commit in', async () => {
  const group = auditedGroup({ auditBlocks: 60 });
  let firstMs: number | undefined;
  let refusals = 0;
  const slow = (honest: Transport): Transport => ({
    ...honest,
    handle: (protocol, handler) =>
      honest.handle(protocol, (...call) => {
        const nowMs = group.net.clock.nowMs();
        if (protocol.id === evidenceProtocol.id) firstMs ??= nowMs;
        if (protocol.id !== evidenceProtocol.id || nowMs > firstMs! + 40_000) return handler(...call);
        refusals++;
        return Promise.resolve(reject('unknown-evidence'));
      }),
  });
  const peers: GroupPeer[] = [];
  for (let index = 0; index < 3; index++) peers.push(await group.start(index, { audits: true }));
  peers.push(await group.start(3, { audits: true, transport: slow }));
  const slowest = group.ids[3]!;
  const audits = () => peers.flatMap(({ events }) => events.filter((event) => event.type === 'audit'));
  await group.until('it is audited', () => audits().some(({ prover }) => prover === slowest));
  assert.ok(group.net.clock.nowMs() > firstMs! + 40_000);
  for (const { code } of audits()) assert.equal(code, 'valid');
  assert.ok(refusals > 10, 'it was asked again and again');
  assert.deepEqual(peers[0]!.peer.ledger.state().keys('slash'), []);
  for (const peer of peers) await peer.stop();
});

test('an auditor that stops between commitment and revelation reveals when it is back', async () => {
  const group = auditedGroup();
  const store = memoryStore();
  const peers = [await group.start(0), await group.start(1), await group.start(2)];
  const first = await group.start(3, { audits: true, store });
  const committed = () => {
    const state = first.peer.ledger.state();
    return state.keys('duty').find((key) => {
      const { commitments, reveals } = state.get('duty', key)!;
      const isOwn = ([node]: readonly [string, ...unknown[]]) => node === group.ids[3];
      return commitments.some(isOwn) && !reveals.some(isOwn);
    });
  };
  await group.until('it has committed', () => committed() !== undefined);
  const duty = committed()!;
  await first.stop();
  assert.equal((await store.list('audit/reveal/')).filter((key) => key.includes(duty)).length, 1);
  const again = await group.start(3, { store });
  await group.until('it has revealed', () => {
    const row = peers[0]!.peer.ledger.state().get('duty', duty);
    return row === undefined || row.reveals.some(([node]) => node === group.ids[3]);
  });
  const places = await peers[0]!.peer.ledger.store.transactions(
    { account: group.ids[3]!, kind: 'audit-reveal' },
    { limit: 10 },
  );
  assert.ok(places.length >= 1);
  assert.deepEqual(peers[0]!.peer.ledger.state().keys('slash'), []);
  assert.deepEqual(
    warnings(again).filter((text) => text.includes('audit')),
    [],
  );
  assert.equal(toHex(again.peer.ledger.state().root()).length, 64);
  for (const peer of [...peers, again]) await peer.stop();
});

test('stages: every node is paid for its part, audited by whoever holds another', async () => {
  const group = auditedGroup({}, 2);
  const peers: GroupPeer[] = [];
  for (let index = 0; index < 4; index++) peers.push(await group.start(index, { audits: true }));
  await group.until('everybody is paid', () => balances(peers[0]!, group).every((amount) => amount > 9_000n));
  checkRoots(peers);
  for (const one of peers) checkSupply(one);
  const stages = new Map(peers.map(({ peer }) => [peer.options.key.nodeId, peer.pipeline.stage]));
  assert.deepEqual([...stages.values()].sort(), [0, 0, 1, 1]);
  const audits = peers.flatMap(({ events, peer }) =>
    events.flatMap((event) => (event.type === 'audit' ? [{ ...event, by: peer.options.key.nodeId }] : [])),
  );
  assert.ok(audits.length >= 8);
  for (const { code, detail } of audits) assert.equal(code, 'valid', detail);
  assert.ok(audits.some(({ prover, by }) => stages.get(prover) === 0 && stages.get(by) === 1));
  assert.ok(audits.some(({ prover, by }) => stages.get(prover) === 1 && stages.get(by) === 0));
  assert.deepEqual(peers[0]!.peer.ledger.state().keys('slash'), []);
  for (const peer of peers) await peer.stop();
});

for (const stages of [1, 2])
  test(`${stages} stage(s): who stops and starts again still has the evidence of what it has claimed`, async () => {
    const group = auditedGroup({}, stages);
    const store = memoryStore();
    const peers: GroupPeer[] = [];
    for (let index = 0; index < 3; index++) peers.push(await group.start(index, { audits: true }));
    let last = await group.start(3, { audits: true, store });
    const head = () => peers[0]!.peer.ledger.head().number;
    for (let restart = 0; restart < 2; restart++) {
      const before = head();
      await group.until('proofs are made and drawn', () => head() > before + 9, 900_000);
      await last.stop();
      assert.ok((await store.list('evidence/')).length > 0);
      last = await group.start(3, { audits: true, store });
    }
    const until = head() + 30;
    await group.until('all of it is audited', () => head() > until, 900_000);
    const own = group.ids[3]!;
    const audits = peers.flatMap(({ events }) => events.filter((event) => event.type === 'audit'));
    assert.ok(audits.filter(({ prover }) => prover === own).length > 3);
    for (const { code, detail } of audits) assert.equal(code, 'valid', detail);
    assert.deepEqual(peers[0]!.peer.ledger.state().keys('slash'), []);
    for (const peer of [...peers, last]) await peer.stop();
  });

/** Updates itself honestly, and sends garbage to its neighbours from the fourth round on. */
function garbageOnward(honest: StageReplica): StageReplica {
  const garbled = async (rows: Float32Array) =>
    (await honest.position()).round < 3 ? rows : rows.map((x, i) => (i % 5 === 0 ? -x : x));
  return {
    ...honest,
    forward: async (call) => {
      const made = await honest.forward(call);
      return made.ok ? accept(await garbled(made.value)) : made;
    },
    backward: async (call) => {
      const made = await honest.backward(call);
      if (!made.ok || !made.value.inputGradient) return made;
      return accept({ ...made.value, inputGradient: await garbled(made.value.inputGradient) });
    },
  };
}

for (const [cheater, name] of [
  [0, 'a Driver'],
  [3, 'the last stage'],
] as const)
  test(`stages: ${name} that sends garbage to its neighbour is slashed, and nobody else`, async () => {
    const group = auditedGroup({}, 2);
    const peers: GroupPeer[] = [];
    for (let index = 0; index < 4; index++)
      peers.push(
        await group.start(index, { audits: true, ...(index === cheater && { disguise: garbageOnward }) }),
      );
    const guilty = group.ids[cheater]!;
    await group.until(
      'it is slashed',
      () => peers.every(({ peer }) => peer.ledger.state().get('prover', guilty)?.convicted),
      900_000,
    );
    const state = peers[0]!.peer.ledger.state();
    const slashed = state.keys('slash').map((key) => state.get('slash', key)!);
    assert.deepEqual(
      slashed.map(({ node, reason }) => [node, reason]),
      [[guilty, 'false-proof']],
    );
    for (const event of peers.flatMap(({ events }) => events))
      if (event.type === 'audit')
        assert.equal(event.code, event.prover === guilty && event.round >= 3 ? 'wrong-rows' : 'valid');
    checkRoots(peers);
    for (const peer of peers) await peer.stop();
  });
