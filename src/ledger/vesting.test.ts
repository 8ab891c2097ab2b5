import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { findsTrue, proverIn, settleAll } from '../../test/proof-world.ts';
import { applyOne } from './apply.ts';
import { moneyInAll } from './money.ts';
import { defaultLedgerPolicy } from './policy.ts';
import { createDraft, createState } from './state.ts';
import { retire } from './transactions/retire.ts';
import { auditRate, isBonded, newProver, proofsToVest, releaseVested, vest } from './vesting.ts';

const key = namedKey('prover');
const row = newProver(key.publicKey);

test('the audit rate follows the number of provers, and vesting follows the rate', () => {
  const table = [0, 19, 20, 99, 100, 499, 500, 9_999].map((provers) => [
    auditRate(defaultLedgerPolicy, provers),
    proofsToVest(defaultLedgerPolicy, provers),
  ]);
  const expected = [
    [500, 10],
    [500, 10],
    [200, 25],
    [200, 25],
    [100, 50],
    [100, 50],
    [50, 100],
    [50, 100],
  ];
  assert.deepEqual(table, expected);
});

test('rewards vest in the order of their proofs, whenever their audits end', () => {
  const later = vest(vest(vest(row, 5, false, 50n), 3, false, 30n), 4, false, 40n);
  assert.deepEqual(later.vesting, [
    [3, 30n, 0],
    [4, 40n, 0],
    [5, 50n, 0],
  ]);
  assert.equal(vest(row, 1, true, 7n).bond, 7n);
  assert.equal(vest(row, 1, false, 0n), row);
});

test('a large proof on a bond of small ones is a first proof again', () => {
  const small = { ...row, proofs: 20, bond: 20n * 100n };
  assert.equal(isBonded(defaultLedgerPolicy, small, 20, 100n), true);
  assert.equal(isBonded(defaultLedgerPolicy, small, 21, 200n), false);
  assert.equal(isBonded(defaultLedgerPolicy, small, 21, 201n), true);
  assert.equal(isBonded({ ...defaultLedgerPolicy, bondProofs: 0 }, row, 1, 1_000n), false);
});

type Vesting = readonly (readonly [number, bigint, number])[];

function released(vesting: Vesting, proofs: number, toVest: number, audits = 0): bigint {
  const ripe = { proofs: toVest, audits: 2 };
  const state = createState([
    { table: 'prover', key: 'p', row: { ...row, proofs, audits: 2 + audits, vesting } },
  ]);
  const draft = createDraft(state);
  releaseVested(draft, 'p', ripe);
  assert.equal(moneyInAll(draft), moneyInAll(state));
  return draft.get('account', 'p')?.balance ?? 0n;
}

test('a reward is paid out after enough further proofs that earned as much', () => {
  const steady = Array.from({ length: 11 }, (_, i) => [i + 1, 100n, 0] as const);
  assert.equal(released(steady.slice(0, 10), 10, 10), 0n);
  assert.equal(released(steady, 11, 10), 100n);
  const small = Array.from({ length: 30 }, (_, i) => [i + 2, 1n, 0] as const);
  assert.equal(released([[1, 1_000n, 0], ...small], 31, 10), 0n);
});

test('proofs that nobody audited ripen nothing, however many they are', () => {
  const steady = Array.from({ length: 60 }, (_, i) => [i + 1, 100n, 3 + Math.floor(i / 20)] as const);
  assert.equal(released(steady, 60, 10, 2), 0n, 'four audits, and the oldest has seen three of them');
  assert.equal(released(steady, 60, 10, 3), 2_000n);
  assert.equal(released(steady, 60, 10, 4), 4_000n);
  assert.equal(released(steady, 60, 10, 9), 5_000n, 'and then as many proofs');
});

test('property: what is released was vesting, and never comes back', () => {
  const amounts = fc.array(fc.bigInt({ min: 1n, max: 1_000n }), { maxLength: 40 });
  fc.assert(
    fc.property(amounts, fc.integer({ min: 1, max: 20 }), (list, toVest) => {
      const vesting = list.map((amount, i) => [i + 1, amount, 0] as const);
      const paid = released(vesting, list.length, toVest);
      assert.ok(paid >= 0n && paid <= list.reduce((sum, each) => sum + each, 0n));
    }),
  );
});

function proveAndSettle(world: LedgerWorld, count: number): void {
  const prover = proverIn(world, key, 10);
  for (let i = 0; i < count; i++) {
    prover.prove();
    settleAll(world, findsTrue);
  }
}

test('balances grow once enough proofs have followed', () => {
  const world = ledgerWorld({ policy: { bondProofs: 2, vestingFactor: 1 } });
  proveAndSettle(world, 4);
  assert.equal(world.balance(key.nodeId), 0n);
  const bonded = world.state.get('prover', key.nodeId)!.bond;
  assert.equal(world.state.get('prover', key.nodeId)!.vesting.length, 2);
  proveAndSettle(world, 2);
  assert.ok(world.balance(key.nodeId) > 0n);
  assert.equal(world.state.get('prover', key.nodeId)!.bond, bonded);
  world.checkSupply();
});

test('who retires gets the bond back after the unbonding time, and begins anew', () => {
  const world = ledgerWorld({ policy: { bondProofs: 2, unbondingMs: 50_000 } });
  const prover = proverIn(world, key, 10);
  const attempt = () => {
    const done = applyOne(world.state, world.sign(retire, null, key), world.context());
    return done.ok ? 'accepted' : done.code;
  };
  assert.equal(attempt(), 'no-bond');
  proveAndSettle(world, 2);
  prover.prove();
  assert.equal(attempt(), 'open-duties');
  settleAll(world, findsTrue);
  const { bond } = world.state.get('prover', key.nodeId)!;
  world.advance([world.sign(retire, null, key)]);
  assert.deepEqual(
    world.state.get('account', key.nodeId)!.unbonding.map(([amount]) => amount),
    [bond],
  );
  assert.equal(attempt(), 'no-bond');
  const duty = prover.prove();
  assert.equal(world.state.get('duty', duty)!.first, true);
  world.checkSupply();
});
