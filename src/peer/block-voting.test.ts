/** What a member proposes, which proposals get its vote, and what it does with a decided block; without consensus. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testKeys } from '../../test/consensus-group.ts';
import { blockOn, endow, listTransaction, roundList, tinyNetwork } from '../../test/ledger-nodes.ts';
import { readCertificate } from '../consensus/certificate.ts';
import type { Certificate, ProposalContext } from '../consensus/types.ts';
import type { KeyPair } from '../identity/keys.ts';
import { ownBeacon } from '../ledger/beacon.ts';
import { decodeBlock, encodeBlock } from '../ledger/block.ts';
import { memoryLedgerStore } from '../ledger/memory-store.ts';
import { accountOf } from '../ledger/money.ts';
import { encodeTransaction, signTransaction, type Transaction } from '../ledger/transaction.ts';
import { equivocation } from '../ledger/transactions/equivocation.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { decodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { createBlockVoting, listOf } from './block-voting.ts';
import { openLedger } from './ledger.ts';

const keys = testKeys(4);
const [alice, bob, carol] = [keys[0]!, keys[1]!, keys[2]!];
const network = tinyNetwork(keys);
const { networkId } = network;
const list = roundList(networkId, 0, keys);
const context: ProposalContext = { height: 1, undecided: [], signal: new AbortController().signal };
const startMs = 1_800_000_000_000;

/** Alice's part; she leads every height unless told otherwise, and has money. */
async function setUp(leader: KeyPair = alice) {
  let nowMs = startMs;
  const clock = { nowMs: () => nowMs, setTimer: () => () => {} };
  const ledger = await openLedger({ network, store: memoryLedgerStore(), clock });
  await endow(ledger, alice.nodeId, 1000n);
  const refused: string[] = [];
  const told: string[] = [];
  const rounds = { list: undefined as Uint8Array | undefined, vote: true, judged: [] as Uint8Array[] };
  const lost: string[] = [];
  const judge: Parameters<typeof createBlockVoting>[0]['judge'] = {
    votesFor: async ({ kind }) => kind !== equivocation.kind,
    proposes: async ({ nonce }) => (nonce < 900 ? 'yes' : nonce < 990 ? 'wait' : 'never'),
    lost: (transactions) => void lost.push(transactions.map(({ nonce }) => nonce).join()),
  };
  const voting = createBlockVoting({
    networkId,
    key: alice,
    clock,
    ledger,
    rounds: {
      propose: async () => rounds.list,
      validate: async (payload) => {
        rounds.judged.push(payload);
        return rounds.vote;
      },
      decided: ({ block }) => void told.push(`list of ${block.payload.length}`),
    },
    leader: () => leader.nodeId,
    judge,
    onBlock: ({ block }) => void told.push(`block ${block.number}`),
    onRefused: (code) => void refused.push(code),
  });
  const pay = (amount: bigint, nonce: number, key = alice): Transaction =>
    signTransaction(networkId, transfer, { body: { to: bob.nodeId, amount }, nonce }, key);
  const wait = (transaction: Transaction) => {
    const added = ledger.mempool.add(encodeTransaction(transaction));
    assert.ok(added.ok, added.ok ? '' : added.code);
  };
  const validate = (payload: Uint8Array) => voting.validate(payload, context);
  return {
    ledger,
    voting,
    refused,
    told,
    lost,
    rounds,
    pay,
    wait,
    validate,
    setNow: (ms: number) => (nowMs = ms),
  };
}

function decodedBlock(payload: Uint8Array | undefined) {
  assert.ok(payload);
  const block = decodeBlock(payload);
  assert.ok(block.ok);
  return block.value;
}

test('nothing waits and no round is over: nothing is proposed', async () => {
  const { voting, refused } = await setUp();
  assert.equal(await voting.propose(context), undefined);
  assert.deepEqual(refused, []);
});

test('a block holds the list first, then what waits, and its own member votes for it', async () => {
  const { voting, rounds, pay, wait, validate, refused } = await setUp();
  rounds.list = list;
  wait(pay(5n, 1));
  wait(pay(6n, 2));
  const payload = await voting.propose(context);
  const block = decodedBlock(payload);
  assert.deepEqual(
    block.transactions.map(({ kind }) => kind),
    ['round', 'transfer', 'transfer'],
  );
  assert.equal(block.timeMs, startMs);
  assert.deepEqual(listOf(block), list);
  assert.equal(await validate(payload!), true);
  assert.deepEqual(rounds.judged, [list]);
  assert.deepEqual(refused, []);
});

test('what has become invalid leaves the mempool, and no block is made of nothing', async () => {
  const { voting, wait, pay, ledger } = await setUp();
  wait(pay(600n, 1));
  // Was good when it came in; the money is gone since.
  const { payload } = blockOn(ledger, { proposer: bob, nowMs: startMs, waiting: [pay(900n, 1)] });
  const { prune } = ledger.mempool;
  ledger.mempool.prune = () => {};
  wait(pay(50n, 3));
  await ledger.take(payload, { epoch: 0, height: 1, certificate: null });
  assert.equal(ledger.mempool.size().transactions, 2);
  const block = decodedBlock(await voting.propose(context));
  assert.deepEqual(
    block.transactions.map(({ nonce }) => nonce),
    [3],
  );
  assert.equal(ledger.mempool.size().transactions, 1, 'the stale one is gone');
  prune();
});

test('what this node would not vote for itself is not in its block; what never will be is dropped', async () => {
  const { ledger, voting, wait, pay, lost } = await setUp();
  for (const nonce of [1, 900, 990]) wait(pay(1n, nonce));
  const nonces = async () =>
    decodedBlock(await voting.propose(context)).transactions.map(({ nonce }) => nonce);
  assert.deepEqual(await nonces(), [1]);
  assert.equal(ledger.mempool.size().transactions, 2);
  // Asked again before its block was decided: that one is lost, and the judge hears of it.
  assert.deepEqual(lost, []);
  const again = await voting.propose(context);
  assert.deepEqual(lost, ['1']);
  const block = { height: 3, parentHeight: 0, parentHash: new Uint8Array(32), payload: again! };
  await voting.decided({ block, hash: sha256(again!) }, 0);
  assert.equal(await voting.propose(context), undefined);
  assert.deepEqual(lost, ['1'], 'a decided one is not lost');
});

test('a node that is no voter proposes nothing', async () => {
  const { ledger, rounds } = await setUp();
  rounds.list = list;
  const stranger = testKeys(9)[8]!;
  const voting = createBlockVoting({
    networkId,
    key: stranger,
    clock: { nowMs: () => startMs, setTimer: () => () => {} },
    ledger,
    rounds: { propose: async () => list, validate: async () => true, decided: () => {} },
    leader: () => stranger.nodeId,
    judge: { votesFor: async () => true, proposes: async () => 'yes', lost: () => {} },
    onBlock: () => {},
    onRefused: () => {},
  });
  assert.equal(await voting.propose(context), undefined);
});

test('proposals that get no vote, each with its reason, and the state stays as it was', async () => {
  const { ledger, validate, refused, pay, setNow, rounds } = await setUp();
  const root = ledger.state().root();
  const good = blockOn(ledger, { proposer: alice, nowMs: startMs, own: [listTransaction(list)] }).block;
  const other = blockOn(ledger, { proposer: bob, nowMs: startMs, waiting: [pay(1n, 1)] }).payload;
  const bent = (changes: Partial<typeof good>) => encodeBlock({ ...good, ...changes });
  const expect = async (payload: Uint8Array, code: string) => {
    refused.length = 0;
    assert.equal(await validate(payload), false, code);
    assert.equal(refused.length, 1);
    if (code) assert.equal(refused[0], code);
  };
  await expect(other, 'wrong-proposer');
  await expect(new Uint8Array([1, 2, 3]), '');
  await expect(bent({ number: 2 }), 'wrong-number');
  await expect(bent({ parentHash: sha256(list) }), 'wrong-parent');
  await expect(bent({ parentStateRoot: sha256(list) }), 'wrong-state-root');
  await expect(bent({ timeMs: startMs + 60_001 }), 'untimely-block');
  await expect(bent({ timeMs: startMs - 300_001 }), 'untimely-block');
  await expect(bent({ beaconCommitment: null }), 'no-beacon');
  await expect(bent({ transactions: [pay(1n, 1, carol)] }), 'overdrawn');
  await expect(bent({ transactions: [{ ...pay(1n, 1), nonce: 2 }] }), 'bad-signature');
  await expect(bent({ transactions: [listTransaction(list), listTransaction(list)] }), 'repeated-kind');
  const accusation = { accused: carol.nodeId, evidence: new Uint8Array(100) };
  const accused = signTransaction(networkId, equivocation, { body: accusation, nonce: 1 }, alice);
  await expect(bent({ transactions: [accused] }), 'bad-evidence');
  // The rounds' own verdict needs no second reason.
  refused.length = 0;
  rounds.vote = false;
  assert.equal(await validate(encodeBlock(good)), false);
  assert.deepEqual(refused, []);
  rounds.vote = true;
  setNow(startMs + 299_000);
  assert.equal(await validate(encodeBlock(good)), true, 'slow, but not too slow');
  assert.deepEqual(ledger.state().root(), root);
  assert.equal(ledger.head().number, 0);
});

test('a decided block is applied and kept before the rounds hear of their list, then others do', async () => {
  const { ledger, voting, told, pay } = await setUp();
  const decide = async (payload: Uint8Array, height: number) => {
    const block = { height, parentHeight: 0, parentHash: new Uint8Array(32), payload };
    const hash = sha256(payload);
    const votes = { signers: [0], signatures: [new Uint8Array(64).fill(height)] };
    const certificate: Certificate = { kind: 'finalize', height, blockHash: hash, ...votes };
    // The first was decided by a later block's certificate.
    await voting.decided({ block, hash, ...(height > 3 && { certificate }) }, 0);
  };
  const parts = { proposer: alice, nowMs: startMs };
  await decide(blockOn(ledger, { ...parts, own: [listTransaction(list)] }).payload, 3);
  assert.deepEqual(told, [`list of ${list.length}`, 'block 1']);
  assert.equal((await ledger.store.head())?.number, 1);
  await decide(blockOn(ledger, { ...parts, waiting: [pay(10n, 1)] }).payload, 4);
  assert.deepEqual(told.slice(2), ['block 2']);
  assert.equal(accountOf(ledger.state(), bob.nodeId).balance, 10n);
  assert.equal((await ledger.store.head())?.height, 4);
  assert.equal((await ledger.store.block(1))?.certificate, null);
  const kept = decodeCanonical((await ledger.store.block(2))!.certificate!, 4096);
  assert.ok(kept.ok);
  const certificate = readCertificate(kept.value);
  assert.ok(certificate.ok);
  assert.equal(certificate.value.height, 4);
  assert.equal(await voting.nextEpoch(0), undefined);
});

test('its own beacon goes on from block to block', async () => {
  const { ledger, voting, rounds } = await setUp();
  for (let round = 0; round < 3; round++) {
    rounds.list = roundList(networkId, round, keys);
    const payload = await voting.propose(context);
    const { beaconPreimage, beaconCommitment } = decodedBlock(payload);
    assert.equal(beaconCommitment !== null, round === 0);
    assert.equal(beaconPreimage !== null, round > 0);
    await ledger.take(payload!, { epoch: 0, height: round + 1, certificate: null });
  }
  const lost = ownBeacon(bob.secretKey, networkId).next(ledger.state().get('member', alice.nodeId)!, 4);
  assert.equal(lost, undefined, "nobody continues another's chain");
});
