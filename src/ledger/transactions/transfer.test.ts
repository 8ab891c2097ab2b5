/** `transfer`: money moves once, whole, and never more than there is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { transfer } from './transfer.ts';

const alice = namedKey('alice');
const bob = namedKey('bob');

test('a transfer moves its amount and no more', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  world.advance([world.sign(transfer, { to: bob.nodeId, amount: 30n }, alice)]);
  assert.equal(world.balance(alice.nodeId), 70n);
  assert.equal(world.balance(bob.nodeId), 30n);
  world.checkSupply();
});

test('what it may not do', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  const root = world.state.root();
  const cases = [
    [world.sign(transfer, { to: bob.nodeId, amount: 101n }, alice), 'overdrawn'],
    [world.sign(transfer, { to: alice.nodeId, amount: 1n }, alice), 'own-account'],
    [world.sign(transfer, { to: bob.nodeId, amount: 0n }, alice), 'malformed-transfer'],
    [world.sign(transfer, { to: bob.nodeId, amount: 2n ** 63n }, alice), 'malformed-transfer'],
    [world.sign(transfer, { to: 'aabb', amount: 1n }, alice), 'malformed-transfer'],
  ] as const;
  for (const [transaction, code] of cases) {
    const result = world.take(world.block([transaction]));
    assert.equal(result.ok ? 'accepted' : result.code, code);
  }
  assert.deepEqual(world.state.root(), root);
});

test('a transfer counts once', () => {
  const world = ledgerWorld();
  world.endow(alice.nodeId, 100n);
  const once = world.sign(transfer, { to: bob.nodeId, amount: 10n }, alice);
  world.advance([once]);
  const again = world.take(world.block([once]));
  assert.equal(again.ok ? 'accepted' : again.code, 'stale-nonce');
  assert.equal(world.balance(bob.nodeId), 10n);
});
