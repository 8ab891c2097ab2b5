/** Blocks: what makes one invalid, and that an invalid one changes nothing. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { encodeCanonical } from '../std/codec.ts';
import type { Outcome } from '../std/outcome.ts';
import { blockBytesMax, decodeBlock, encodeBlock, type LedgerBlock } from './block.ts';
import { chainOf } from './money.ts';
import type { Transaction } from './transaction.ts';
import { transfer } from './transactions/transfer.ts';
import { unstake } from './transactions/unstake.ts';

const alice = namedKey('alice');
const bob = namedKey('bob');
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

function pay(world: LedgerWorld, amount = 1n): Transaction {
  return world.sign(transfer, { to: bob.nodeId, amount }, alice);
}

test('a block that does not follow from its parent is refused, and nothing changes', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  world.advance([pay(world)]);
  const good = world.block([pay(world)]);
  const { timeMs } = chainOf(world.state);
  const root = world.state.root();
  const cases: readonly (readonly [Partial<LedgerBlock>, string])[] = [
    [{ number: good.number + 1 }, 'wrong-number'],
    [{ number: good.number - 1 }, 'wrong-number'],
    [{ parentHash: new Uint8Array(32) }, 'wrong-parent'],
    [{ parentStateRoot: new Uint8Array(32) }, 'wrong-state-root'],
    [{ timeMs }, 'wrong-time'],
    [{ timeMs: timeMs - 1 }, 'wrong-time'],
    [{ proposer: alice.nodeId }, 'not-a-voter'],
    [{ transactions: [{ ...pay(world), kind: 'wish' }] }, 'unknown-kind'],
    [{ transactions: [{ ...pay(world), nonce: 1_000 }] }, 'bad-signature'],
    [{ transactions: [{ ...pay(world), publicKey: bob.publicKey }] }, 'bad-signature'],
    [{ transactions: [{ ...pay(world), publicKey: null, signature: null }] }, 'unsigned'],
    [{ transactions: [pay(world), pay(world, 1_000n)] }, 'overdrawn'],
    [{ transactions: Array.from({ length: 257 }, () => pay(world)) }, 'too-many-transactions'],
  ];
  for (const [change, code] of cases) assert.equal(codeOf(world.take({ ...good, ...change })), code);
  assert.deepEqual(world.state.root(), root);
  const twice = world.take({ ...good, transactions: [good.transactions[0]!, good.transactions[0]!] });
  assert.equal(codeOf(twice), 'stale-nonce');
  assert.match(twice.ok ? '' : twice.detail, /^transaction 1: /);
  assert.equal(codeOf(world.take(good)), 'accepted');
  assert.equal(codeOf(world.take(good)), 'wrong-number');
});

test('receipts say whose accounts changed', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  const [receipt] = world.advance([pay(world)]).receipts;
  assert.equal(receipt!.kind, 'transfer');
  assert.equal(receipt!.author, alice.nodeId);
  assert.deepEqual(receipt!.accounts, [alice.nodeId, bob.nodeId].sort());
});

test('a rejected transaction inside a valid draft leaves no trace', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 5n);
  const result = world.take(world.block([world.sign(unstake, { amount: 1n }, alice)]));
  assert.equal(codeOf(result), 'not-staked');
  assert.equal(world.state.get('account', alice.nodeId)!.nonce, 0);
});

test('a block as bytes comes back whole', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  const block = world.block([pay(world), pay(world)]);
  const decoded = decodeBlock(encodeBlock(block));
  assert.ok(decoded.ok);
  assert.deepEqual(encodeBlock(decoded.value), encodeBlock(block));
  assert.equal(codeOf(world.take(decoded.value)), 'accepted');
});

test('hostile blocks get one code', () => {
  const world = ledgerWorld();
  const hash = new Uint8Array(32);
  const fields = (over: Record<number, unknown>) =>
    encodeCanonical([1, 1, hash, hash, 5, hash, null, null, []].map((field, i) => over[i] ?? field) as never);
  assert.equal(codeOf(decodeBlock(fields({}))), 'accepted');
  const cases: readonly (readonly [Uint8Array, string])[] = [
    [new Uint8Array(blockBytesMax + 1), 'too-large'],
    [encodeBlock(world.block([])).subarray(0, -1), 'malformed'],
    [encodeCanonical([]), 'malformed-block'],
    [fields({ 0: 2 }), 'malformed-block'],
    [fields({ 1: -1 }), 'malformed-block'],
    [fields({ 2: new Uint8Array(31) }), 'malformed-block'],
    [fields({ 3: 'root' }), 'malformed-block'],
    [fields({ 4: 1.5 }), 'malformed-block'],
    [fields({ 5: new Uint8Array(33) }), 'malformed-block'],
    [fields({ 6: new Uint8Array(1) }), 'malformed-block'],
    [fields({ 7: 3 }), 'malformed-block'],
    [fields({ 8: {} }), 'malformed-block'],
    [fields({ 8: [[]] }), 'malformed-transaction'],
    [new Uint8Array(blockBytesMax).fill(0x81), 'malformed'],
  ];
  for (const [bytes, code] of cases) assert.equal(codeOf(decodeBlock(bytes)), code);
});
