/** Escrow, claim and refund: who serves is paid by receipts, once, and paying oneself loses. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { toHex } from '../../std/bytes.ts';
import type { Outcome } from '../../std/outcome.ts';
import { chainOf } from '../money.ts';
import { signReceipt } from '../receipt.ts';
import type { Transaction } from '../transaction.ts';
import { type Claim, claim } from './claim.ts';
import { escrow } from './escrow.ts';
import { refund } from './refund.ts';

const payer = namedKey('payer');
const gateway = namedKey('gateway');
const [driver, worker, other, validator] = ['driver', 'worker', 'other', 'validator'].map(namedKey) as [
  typeof payer,
  typeof payer,
  typeof payer,
  typeof payer,
];
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const take = (world: LedgerWorld, transaction: Transaction, afterMs?: number) =>
  codeOf(world.take(world.block([transaction], afterMs)));

function opened(amount = 1_000n, payee = gateway): { world: LedgerWorld; id: string } {
  const world = ledgerWorld({ founders: 1 });
  world.endow(payer.nodeId, 1_000n);
  const { timeMs } = world.context();
  const expiresMs = timeMs + 60_000;
  const { receipts } = world.advance([world.sign(escrow, { payee: payee.nodeId, amount, expiresMs }, payer)]);
  return { world, id: toHex(receipts[0]!.id) };
}

function claimOf(
  world: LedgerWorld,
  id: string,
  amount: bigint,
  over: Partial<Claim> = {},
  by = payer,
): Claim {
  return {
    ...signReceipt(world.constants.networkId, { escrow: id, amount }, by),
    driver: driver.nodeId,
    workers: [worker.nodeId, other.nodeId],
    validator: validator.nodeId,
    ...over,
  };
}

test('a claim burns and divides, and the next one pays the difference', () => {
  const { world, id } = opened();
  assert.equal(world.balance(payer.nodeId), 0n);
  world.advance([world.sign(claim, claimOf(world, id, 200n), gateway)]);
  // 200: 10 burned; of 190 the Driver 28, the Validator 28, the Workers 67 each.
  assert.equal(chainOf(world.state).burned, 10n);
  assert.equal(world.balance(driver.nodeId), 28n);
  assert.equal(world.balance(validator.nodeId), 28n);
  assert.equal(world.balance(worker.nodeId), 67n);
  assert.equal(world.balance(other.nodeId), 67n);
  world.advance([world.sign(claim, claimOf(world, id, 1_000n, { workers: [] }), gateway)]);
  assert.equal(chainOf(world.state).burned, 50n);
  assert.equal(world.state.get('escrow', id), undefined);
  world.checkSupply();
});

test('both sides find escrow, claim and refund in their history', () => {
  const { world, id } = opened();
  const paid = world.advance([world.sign(claim, claimOf(world, id, 200n), gateway)]).receipts[0]!;
  for (const { nodeId } of [payer, gateway, driver, worker, other, validator])
    assert.ok(paid.accounts.includes(nodeId));
  const back = world.advance([world.sign(refund, { escrow: id }, payer)], 60_000).receipts[0]!;
  assert.deepEqual(back.accounts, [payer.nodeId, gateway.nodeId].sort());
});

test('what is divided is all there is, for every amount', () => {
  for (const amount of [1n, 2n, 3n, 7n, 19n, 20n, 21n, 999n]) {
    for (const workers of [[], [worker.nodeId], [worker.nodeId, other.nodeId, worker.nodeId]]) {
      const { world, id } = opened();
      world.advance([world.sign(claim, claimOf(world, id, amount, { workers }), gateway)]);
      world.checkSupply();
      const paid = [driver, worker, other, validator].reduce(
        (sum, key) => sum + world.balance(key.nodeId),
        0n,
      );
      assert.equal(paid, amount - (amount * 50n + 999n) / 1000n);
    }
  }
});

test('who pays itself loses the burn', () => {
  const { world, id } = opened(1_000n, payer);
  const own = { driver: payer.nodeId, workers: [payer.nodeId], validator: payer.nodeId };
  world.advance([world.sign(claim, claimOf(world, id, 1_000n, own), payer)]);
  assert.equal(world.balance(payer.nodeId), 950n);
});

test('claims that are not paid', () => {
  const { world, id } = opened();
  world.advance([world.sign(claim, claimOf(world, id, 200n), gateway)]);
  const good = claimOf(world, id, 300n);
  assert.equal(take(world, world.sign(claim, claimOf(world, id, 200n), gateway)), 'nothing-new');
  assert.equal(take(world, world.sign(claim, claimOf(world, id, 1_001n), gateway)), 'beyond-escrow');
  assert.equal(take(world, world.sign(claim, good, driver)), 'not-the-payee');
  assert.equal(take(world, world.sign(claim, claimOf(world, id, 300n, {}, gateway), gateway)), 'bad-receipt');
  assert.equal(take(world, world.sign(claim, { ...good, amount: 301n }, gateway)), 'bad-receipt');
  assert.equal(
    take(world, world.sign(claim, claimOf(world, toHex(new Uint8Array(32)), 1n), gateway)),
    'unknown-escrow',
  );
  assert.equal(take(world, world.sign(claim, good, gateway)), 'accepted');
});

test('the rest goes back when it has expired, or when the payee gives it', () => {
  const { world, id } = opened();
  world.advance([world.sign(claim, claimOf(world, id, 100n), gateway)]);
  assert.equal(take(world, world.sign(refund, { escrow: id }, payer)), 'not-expired');
  assert.equal(take(world, world.sign(refund, { escrow: id }, driver)), 'not-yours');
  assert.equal(take(world, world.sign(refund, { escrow: id }, payer), 60_000), 'accepted');
  assert.equal(world.balance(payer.nodeId), 900n);
  assert.equal(take(world, world.sign(refund, { escrow: id }, payer)), 'unknown-escrow');
  world.checkSupply();

  const early = opened(400n);
  assert.equal(take(early.world, early.world.sign(refund, { escrow: early.id }, gateway)), 'accepted');
  assert.equal(early.world.balance(payer.nodeId), 1_000n);
});

test('an escrow has an end, and money in it', () => {
  const { world } = opened();
  const { timeMs } = world.context();
  const open = (expiresMs: number, amount: bigint) =>
    take(world, world.sign(escrow, { payee: gateway.nodeId, amount, expiresMs }, payer));
  assert.equal(open(timeMs, 1n), 'wrong-expiry');
  assert.equal(open(timeMs + 25 * 3_600_000, 1n), 'wrong-expiry');
  assert.equal(open(timeMs + 1_000, 1n), 'overdrawn');
});
