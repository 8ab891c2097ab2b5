import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { findsTrue, hashOf, proverIn, settleAll } from '../../../test/proof-world.ts';
import { applyOne } from '../apply.ts';
import { chainOf } from '../money.ts';
import { fraud } from './fraud.ts';

const reporter = namedKey('reporter');
const accused = namedKey('driver');
const body = { publicKey: accused.publicKey, evidence: hashOf('claim') };

test('a convicted Driver loses what it has, once, half of it to the reporter', () => {
  const world = ledgerWorld();
  const prover = proverIn(world, accused, 10);
  prover.prove();
  settleAll(world, findsTrue);
  const { bond } = world.state.get('prover', accused.nodeId)!;
  const open = prover.prove();
  world.advance([world.sign(fraud, body, reporter)]);
  assert.equal(world.balance(reporter.nodeId), bond / 2n);
  assert.equal(world.state.get('duty', open), undefined);
  assert.equal(world.state.get('prover', accused.nodeId)!.openDuties, 0);
  const [key] = world.state.keys('slash');
  const row = world.state.get('slash', key!)!;
  assert.equal(row.reason, 'driver-fraud');
  assert.equal(row.reporter, reporter.nodeId);
  const again = applyOne(world.state, world.sign(fraud, body, reporter), world.context());
  assert.ok(!again.ok && again.code === 'already-convicted');
  assert.ok(chainOf(world.state).burned > bond / 2n);
  world.checkSupply();
});

test('who has proved nothing yet is convicted, too; nobody reports itself', () => {
  const world = ledgerWorld();
  const own = applyOne(world.state, world.sign(fraud, body, accused), world.context());
  assert.ok(!own.ok && own.code === 'own-fraud');
  world.advance([world.sign(fraud, body, reporter)]);
  assert.equal(world.state.get('prover', accused.nodeId)!.convicted, true);
  assert.equal(world.balance(reporter.nodeId), 0n);
});

test('malformed bodies are refused', () => {
  for (const wrong of [
    [],
    [accused.publicKey],
    [accused.publicKey.subarray(1), hashOf('x')],
    [accused.publicKey, new Uint8Array(0)],
    [accused.publicKey, new Uint8Array(4097)],
  ]) {
    const parsed = fraud.parse(wrong);
    assert.ok(!parsed.ok && parsed.code === 'malformed-fraud');
  }
});
