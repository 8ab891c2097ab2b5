/** The ledger of one node over its lives: what it begins with, what it keeps, and what it does when keeping fails. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testKeys } from '../../test/consensus-group.ts';
import {
  blockOn,
  endow,
  listTransaction,
  roundList,
  takeNext,
  tinyNetwork,
} from '../../test/ledger-nodes.ts';
import { genesisHash } from '../consensus/block.ts';
import { verifyDigest } from '../identity/keys.ts';
import { encodeBlock } from '../ledger/block.ts';
import { memoryLedgerStore } from '../ledger/memory-store.ts';
import { accountOf, chainOf, moneyInAll } from '../ledger/money.ts';
import type { LedgerStore } from '../ledger/store.ts';
import { transfer } from '../ledger/transactions/transfer.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { type LedgerOptions, openLedger } from './ledger.ts';

const keys = testKeys(4);
const [alice, bob] = [keys[0]!, keys[1]!];
let nowMs = 1_800_000_000_000;
const clock = { nowMs: () => nowMs, setTimer: () => () => {} };

async function opened(store: LedgerStore = memoryLedgerStore(), network = tinyNetwork(keys)) {
  return { network, store, ledger: await openLedger({ network, store, clock }) };
}

const listOfRound = (networkId: Uint8Array, round: number) =>
  listTransaction(roundList(networkId, round, keys));

test('it begins with the founders and nothing else, the same for all who hold the manifest', async () => {
  const { ledger } = await opened();
  const other = await opened();
  assert.equal(ledger.head().number, 0);
  assert.deepEqual(ledger.state().root(), other.ledger.state().root());
  assert.deepEqual(await ledger.store.head(), ledger.head());
  const { epoch, members, root } = ledger.firstEpoch();
  assert.equal(epoch, 0);
  assert.deepEqual(root, genesisHash);
  assert.deepEqual(members.map(({ nodeId }) => nodeId).sort(), keys.map(({ nodeId }) => nodeId).sort());
  assert.equal(chainOf(ledger.state()).minted, 0n);
});

test('opened again it stands where it stood, and what it says of the first epoch stays', async () => {
  const { network, store, ledger } = await opened();
  await endow(ledger, alice.nodeId, 1000n);
  const bytes = ledger.sign(transfer, { to: bob.nodeId, amount: 300n }, alice);
  const sent = ledger.mempool.add(bytes);
  assert.ok(sent.ok);
  const taken = await takeNext(ledger, { proposer: bob, nowMs, waiting: [sent.value.transaction] });
  assert.equal(ledger.mempool.size().transactions, 0, 'a block takes it out of what waits');
  await takeNext(ledger, { proposer: alice, nowMs, own: [listOfRound(network.networkId, 0)] });
  const { ledger: again } = await opened(store, network);
  assert.deepEqual(again.head(), ledger.head());
  assert.deepEqual(again.applied(), { epoch: 0, height: 4 });
  assert.deepEqual(again.state().root(), ledger.state().root());
  assert.equal(accountOf(again.state(), bob.nodeId).balance, 300n);
  assert.deepEqual(again.firstEpoch(), ledger.firstEpoch());
  const stored = await store.block(1);
  assert.ok(stored);
  assert.deepEqual(stored.hash, taken.hash);
  const places = await store.transactions({ account: bob.nodeId }, { limit: 10 });
  assert.deepEqual(
    places.map(({ kind, number }) => [kind, number]),
    [['transfer', 1]],
  );
  await takeNext(again, { proposer: bob, nowMs, own: [listOfRound(network.networkId, 1)] });
  assert.equal(again.head().number, 3);
});

test('rows that are not those after the last block are one clear error', async () => {
  const { network, store, ledger } = await opened();
  await endow(ledger, alice.nodeId, 1000n);
  await takeNext(ledger, { proposer: alice, nowMs, own: [listOfRound(network.networkId, 0)] });
  const spoilt: LedgerStore = {
    ...store,
    async *rows() {
      for await (const rows of store.rows())
        yield rows.map((row) =>
          row.table === 'account' ? { ...row, row: { ...accountOf(ledger.state(), 'x'), balance: 9n } } : row,
        );
    },
  };
  await assert.rejects(opened(spoilt, network), { code: 'ledger-damaged' });
  const lost: LedgerStore = { ...store, rows: async function* () {} };
  await assert.rejects(opened(lost, network), { code: 'ledger-damaged' });
  assert.equal((await opened(store, network)).ledger.head().number, 1);
});

test('the end of an epoch names who comes next, and only then', async () => {
  const { network, ledger } = await opened(memoryLedgerStore(), tinyNetwork(keys, { epochBlocks: 2 }));
  const close = (round: number, epoch: number) =>
    takeNext(ledger, { proposer: alice, nowMs, own: [listOfRound(network.networkId, round)] }, epoch);
  assert.equal(ledger.nextEpoch(0), undefined);
  await close(0, 0);
  assert.equal(ledger.nextEpoch(0), undefined);
  await close(1, 0);
  const next = ledger.nextEpoch(0);
  assert.ok(next);
  assert.equal(next.members.length, 4);
  assert.deepEqual(next.stateRoot, ledger.state().root());
  assert.equal(next.timeMs, chainOf(ledger.state()).timeMs);
  assert.equal(ledger.nextEpoch(1), undefined);
  await close(2, 1);
  assert.equal(ledger.nextEpoch(0), undefined, 'its first block is past');
  assert.deepEqual(ledger.applied(), { epoch: 1, height: 6 });
});

test('a block that is not kept is not applied: memory says what a restart would find', async () => {
  const store = memoryLedgerStore();
  let full = true;
  const failing: LedgerStore = {
    ...store,
    append: async (...call) => {
      if (full) throw new Error('no room');
      return store.append(...call);
    },
  };
  const { network, ledger } = await opened(failing);
  await endow(ledger, alice.nodeId, 1000n);
  const sent = ledger.mempool.add(ledger.sign(transfer, { to: bob.nodeId, amount: 1n }, alice));
  assert.ok(sent.ok);
  const parts = { proposer: alice, nowMs, waiting: [sent.value.transaction] };
  const own = [listOfRound(network.networkId, 0)];
  const { payload } = blockOn(ledger, { ...parts, own });
  const root = toHex(ledger.state().root());
  const place = { epoch: 0, height: 1, certificate: null };
  await assert.rejects(ledger.take(payload, place), /no room/);
  assert.equal(ledger.head().number, 0);
  assert.equal(toHex(ledger.state().root()), root);
  assert.deepEqual(ledger.state().keys('round'), []);
  assert.equal(moneyInAll(ledger.state()), 1000n);
  assert.equal(ledger.mempool.size().transactions, 1, 'it still waits');
  full = false;
  const taken = await ledger.take(payload, place);
  assert.deepEqual(ledger.head().hash, taken.hash);
  assert.deepEqual(await store.head(), ledger.head());
});

test('a decided block that does not apply, or is none, throws and changes nothing', async () => {
  const { network, ledger } = await opened();
  const first = blockOn(ledger, { proposer: alice, nowMs, own: [listOfRound(network.networkId, 0)] });
  const place = { epoch: 0, height: 1, certificate: null };
  await ledger.take(first.payload, place);
  const head = ledger.head();
  const root = ledger.state().root();
  await assert.rejects(ledger.take(first.payload, place), { code: 'ledger-diverged' });
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      await assert.rejects(ledger.take(bytes, place));
    }),
    { numRuns: 50 },
  );
  assert.deepEqual(ledger.head(), head);
  assert.deepEqual(ledger.state().root(), root);
});

test('what one node signs comes in order, whatever its clock says', async () => {
  const { ledger } = await opened();
  await endow(ledger, alice.nodeId, 1000n);
  const nonces: number[] = [];
  const submit = () => {
    const added = ledger.mempool.add(ledger.sign(transfer, { to: bob.nodeId, amount: 1n }, alice));
    assert.ok(added.ok, added.ok ? '' : added.code);
    nonces.push(added.value.transaction.nonce);
  };
  submit();
  submit();
  nowMs -= 5_000;
  submit();
  nowMs += 60_000;
  submit();
  assert.deepEqual(nonces, [nowMs - 55_000, nowMs - 54_999, nowMs - 54_998, nowMs]);
});

test('signatures of blocks that will be taken are verified while they wait, each once', async () => {
  const network = tinyNetwork(keys);
  const { ledger } = await opened(undefined, network);
  await endow(ledger, alice.nodeId, 1000n);
  const waiting = Array.from({ length: 20 }, () => {
    const added = ledger.mempool.add(ledger.sign(transfer, { to: bob.nodeId, amount: 1n }, alice));
    assert.ok(added.ok);
    return added.value.transaction;
  });
  let asked = 0;
  const verifyMany: LedgerOptions['verifyMany'] = async (signed) => {
    asked += signed.length;
    return signed.map((one) => verifyDigest(one.digest, one.signature, one.publicKey));
  };
  const behind = await openLedger({ network, store: memoryLedgerStore(), clock, verifyMany });
  await endow(behind, alice.nodeId, 1000n);
  const { block } = await takeNext(ledger, { proposer: bob, nowMs, waiting });
  const payload = encodeBlock(block);
  behind.prepare([payload, utf8('the end of an epoch')]);
  assert.equal(asked, 20);
  await behind.take(payload, { epoch: 0, height: 2, certificate: null });
  assert.equal(asked, 20);
  assert.deepEqual(behind.state().root(), ledger.state().root());
});
