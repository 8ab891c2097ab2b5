/** What waits for a block: bounded, valid when it came, and a block made of it is always valid. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type LedgerWorld,
  ledgerConstants,
  ledgerWorld,
  namedKey,
  worldStartMs,
} from '../../test/ledger-world.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { createMempool, type Mempool, type MempoolLimits, nonceAheadMax } from './mempool.ts';
import { assembleBlock } from './propose.ts';
import { createSignatureMemory } from './signature-memory.ts';
import {
  encodeTransaction,
  signTransaction,
  type Transaction,
  transactionId,
  unsignedTransaction,
} from './transaction.ts';
import { round } from './transactions/round.ts';
import { transfer } from './transactions/transfer.ts';

const alice = namedKey('alice');
const bob = namedKey('bob');
const carol = namedKey('carol');
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

interface Setting {
  readonly world: LedgerWorld;
  readonly mempool: Mempool;
  readonly clock: { nowMs(): number; ms: number };
  add(transaction: Transaction): string;
  pay(amount: bigint, from?: typeof alice, to?: typeof alice): Transaction;
}

const { networkId } = ledgerConstants();
const { verify } = createSignatureMemory({ networkId, rememberedMax: 1_000 });

function setting(
  limits: Partial<MempoolLimits> = {},
  accepts: (transaction: Transaction) => Outcome<unknown> = () => accept(undefined),
): Setting {
  const world = ledgerWorld({ founders: 1 });
  world.endow(alice.nodeId, 100n);
  world.endow(bob.nodeId, 100n);
  const clock = { ms: worldStartMs, nowMs: () => clock.ms };
  const { constants } = world;
  const mempool = createMempool({ head: () => world.state, constants, clock, verify, limits, accepts });
  return {
    world,
    mempool,
    clock,
    add: (transaction) => codeOf(mempool.add(encodeTransaction(transaction))),
    pay: (amount, from = alice, to = carol) => world.sign(transfer, { to: to.nodeId, amount }, from),
  };
}

function assemble(
  { world, mempool, clock }: Setting,
  over: Partial<Parameters<typeof assembleBlock>[0]> = {},
) {
  const { state, constants } = world;
  const { proposer, beaconPreimage, beaconCommitment } = world.block([]);
  const made = assembleBlock({
    state,
    constants,
    proposer,
    beaconPreimage,
    beaconCommitment,
    nowMs: clock.nowMs(),
    own: [],
    waiting: mempool.candidates().map(({ transaction }) => transaction),
    verify,
    ...over,
  });
  assert.ok(made.ok);
  return made.value;
}

test('one code for each refusal', () => {
  const s = setting({ perAuthorMax: 3 });
  const first = s.pay(60n);
  assert.equal(s.add(first), 'accepted');
  assert.equal(s.add(first), 'known');
  assert.equal(s.add(s.pay(60n)), 'overdrawn', 'together with the first it is too much');
  assert.equal(s.add({ ...s.pay(1n), signature: first.signature }), 'bad-signature');
  assert.equal(s.add({ ...s.pay(1n), kind: 'wish' }), 'unknown-kind');
  assert.equal(s.add(unsignedTransaction(round, { round: 1, entries: [1] })), 'not-signed-by-author');
  assert.equal(codeOf(s.mempool.add(new Uint8Array([1]))), 'malformed-transaction');
  assert.equal(codeOf(s.mempool.add(new Uint8Array(100_000))), 'too-large');
  const { networkId } = s.world.constants;
  const body = { to: carol.nodeId, amount: 1n };
  const future = { body, nonce: worldStartMs + nonceAheadMax + 1 };
  assert.equal(s.add(signTransaction(networkId, transfer, future, alice)), 'future-nonce');
  assert.equal(
    s.add(signTransaction(networkId, transfer, { body, nonce: first.nonce }, alice)),
    'stale-nonce',
  );
  assert.equal(s.add(s.pay(1n)), 'accepted');
  assert.equal(s.add(s.pay(1n)), 'accepted');
  assert.equal(s.add(s.pay(1n)), 'too-many-of-author');
  assert.equal(s.mempool.size().transactions, 3);
});

test('a block of what waits is valid, in the order of nonces, and leaves nothing behind', () => {
  const s = setting();
  const [one, two, three] = [s.pay(10n), s.pay(20n), s.pay(30n, bob)];
  // The network brings the author's second first.
  for (const transaction of [two, three, one]) assert.equal(s.add(transaction), 'accepted');
  assert.equal(s.mempool.newestNonce(alice.nodeId), two.nonce);
  const isWaiting = () => s.mempool.has(transactionId(s.world.constants.networkId, two));
  assert.equal(isWaiting(), true);
  const { block } = assemble(s);
  assert.deepEqual(block.transactions.map(encodeTransaction), [one, three, two].map(encodeTransaction));
  assert.equal(codeOf(s.world.take(block)), 'accepted');
  s.mempool.prune();
  assert.deepEqual(s.mempool.size(), { transactions: 0, bytes: 0 });
  assert.equal(isWaiting(), false);
  assert.equal(s.world.balance(carol.nodeId), 60n);
});

test('what became invalid is left out of a block and named', () => {
  const s = setting();
  const waiting = s.pay(80n);
  assert.equal(s.add(waiting), 'accepted');
  const other = signTransaction(
    s.world.constants.networkId,
    transfer,
    { body: { to: bob.nodeId, amount: 90n }, nonce: waiting.nonce },
    alice,
  );
  s.world.advance([other]);
  const bobs = s.pay(5n, bob);
  assert.equal(s.add(bobs), 'accepted');
  const { block, refused } = assemble(s);
  assert.deepEqual(block.transactions.map(encodeTransaction), [encodeTransaction(bobs)]);
  assert.deepEqual(
    refused.map(({ code }) => code),
    ['stale-nonce'],
  );
  s.mempool.remove(refused.map(({ transaction }) => transaction));
  assert.equal(s.mempool.size().transactions, 1);
  assert.equal(codeOf(s.world.take(block)), 'accepted');
});

test('a block keeps its bounds', () => {
  const s = setting();
  for (let i = 0; i < 5; i++) assert.equal(s.add(s.pay(1n)), 'accepted');
  const size = assemble(s, { waiting: [] }).payload.length;
  const one = assemble(s, { bytesMax: size + 250 });
  assert.equal(one.block.transactions.length, 1);
  assert.ok(one.payload.length <= size + 250);
  const whole = assemble(s);
  assert.equal(whole.block.transactions.length, 5);
  const own = unsignedTransaction(round, { round: 1, entries: ['not an announcement'] });
  const withOwn = assemble(s, { own: [own] });
  assert.deepEqual(withOwn.refused, [{ transaction: own, code: 'malformed-announcement' }]);
  assert.equal(codeOf(s.world.take(withOwn.block)), 'accepted');
});

test('when it is full, who has most waiting makes room', () => {
  const s = setting({ transactionsMax: 3 });
  for (let i = 0; i < 3; i++) assert.equal(s.add(s.pay(1n)), 'accepted');
  assert.equal(s.add(s.pay(1n)), 'mempool-full');
  assert.equal(s.add(s.pay(1n, bob)), 'accepted');
  const authors = s.mempool.candidates().map(({ author }) => author);
  assert.deepEqual(authors.sort(), [alice.nodeId, alice.nodeId, bob.nodeId].sort());
  assert.equal(s.add(s.pay(1n, bob)), 'mempool-full');
  const small = setting({ bytesMax: 200 });
  assert.equal(small.add(small.pay(1n)), 'accepted');
  assert.equal(small.add(small.pay(1n, bob)), 'mempool-full');
});

test('what no block takes is dropped in time', () => {
  const s = setting({ ageMsMax: 1_000 });
  assert.equal(s.add(s.pay(1n)), 'accepted');
  s.clock.ms += 1_000;
  s.mempool.prune();
  assert.equal(s.mempool.size().transactions, 1);
  s.clock.ms += 1;
  s.mempool.prune();
  assert.equal(s.mempool.size().transactions, 0);
});

test('what voters would refuse does not wait', () => {
  const s = setting({}, ({ nonce }) => (nonce % 2 === 0 ? accept(undefined) : reject('not-evidence')));
  const [one, two] = [s.pay(1n), s.pay(1n)];
  assert.equal(s.add(one), one.nonce % 2 === 0 ? 'accepted' : 'not-evidence');
  assert.equal(s.add(two), two.nonce % 2 === 0 ? 'accepted' : 'not-evidence');
  assert.equal(s.mempool.size().transactions, 1);
});
