/** Who votes: founders fade, stake elects, equivocators are out, and somebody always votes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { type KeyPair, nodeIdOf } from '../identity/keys.ts';
import type { Outcome } from '../std/outcome.ts';
import { votersOf } from './members.ts';
import { accountOf, chainOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import { equivocation } from './transactions/equivocation.ts';
import { leave } from './transactions/leave.ts';
import { register } from './transactions/register.ts';
import { stake } from './transactions/stake.ts';
import { transfer } from './transactions/transfer.ts';
import { unstake } from './transactions/unstake.ts';

const alice = namedKey('alice');
const bob = namedKey('bob');
const policy: Partial<LedgerPolicy> = {
  epochBlocks: 5,
  memberStakeMin: 1_000,
  founderFadeStake: 10_000,
  unbondingMs: 60_000,
};
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

function bond(world: LedgerWorld, key: KeyPair, amount: bigint): void {
  world.endow(key.nodeId, amount);
  world.advance([world.sign(stake, { amount }, key)]);
}

function nextEpoch(world: LedgerWorld): void {
  const { epoch } = chainOf(world.state);
  while (chainOf(world.state).epoch === epoch) world.advance();
}

const weights = (world: LedgerWorld) => Object.fromEntries(chainOf(world.state).voters);

test('stake elects from the next epoch on, and founders fade', () => {
  const world = ledgerWorld({ founders: 2, policy });
  const [first, second] = world.founders as [KeyPair, KeyPair];
  bond(world, alice, 4_000n);
  world.advance([world.sign(register, { stage: 0 }, alice)]);
  assert.deepEqual(weights(world), { [first.nodeId]: 1_000, [second.nodeId]: 1_000 });
  nextEpoch(world);
  const faded = { [first.nodeId]: 600, [second.nodeId]: 600, [alice.nodeId]: 4_000 };
  assert.deepEqual(weights(world), faded);
  // Stake of those who did not ask for a vote neither votes nor fades founders.
  bond(world, bob, 50_000n);
  nextEpoch(world);
  assert.deepEqual(weights(world), faded);
  assert.deepEqual(
    votersOf(world.state).map(({ nodeId, publicKey }) => [nodeId, nodeIdOf(publicKey)]),
    [first.nodeId, second.nodeId, alice.nodeId].sort().map((nodeId) => [nodeId, nodeId]),
  );
});

test('at S* only stake votes', () => {
  const world = ledgerWorld({ founders: 1, policy });
  bond(world, alice, 10_000n);
  world.advance([world.sign(register, { stage: 0 }, alice)]);
  nextEpoch(world);
  assert.deepEqual(weights(world), { [alice.nodeId]: 10_000 });
});

test('no more than the policy allows, the heaviest first', () => {
  const world = ledgerWorld({
    founders: 3,
    policy: { ...policy, membersMax: 2, founderFadeStake: 1_000_000 },
  });
  bond(world, alice, 2_000n);
  world.advance([world.sign(register, { stage: 0 }, alice)]);
  nextEpoch(world);
  const { voters } = chainOf(world.state);
  assert.equal(voters.length, 2);
  assert.ok(voters.some(([nodeId, weight]) => nodeId === alice.nodeId && weight === 2_000));
  const smallest = world.founders.map(({ nodeId }) => nodeId).sort()[0];
  assert.ok(voters.some(([nodeId]) => nodeId === smallest));
});

test('enormous stakes stay countable', () => {
  const world = ledgerWorld({
    founders: 2,
    policy: { ...policy, memberStakeMin: 0, founderFadeStake: 2 ** 53 - 1 },
  });
  bond(world, alice, 2n ** 60n);
  world.advance([world.sign(register, { stage: 0 }, alice)]);
  nextEpoch(world);
  const total = chainOf(world.state).voters.reduce((sum, [, weight]) => sum + weight, 0);
  assert.ok(Number.isSafeInteger(3 * total) && total > 0);
});

test('who may register, and leave', () => {
  const world = ledgerWorld({ founders: 2, policy });
  const take = (...transactions: Parameters<typeof world.block>[0]) =>
    codeOf(world.take(world.block(transactions)));
  assert.equal(take(world.sign(register, { stage: 0 }, alice)), 'stake-too-small');
  assert.equal(take(world.sign(leave, {}, alice)), 'not-registered');
  bond(world, alice, 1_000n);
  assert.equal(take(world.sign(register, { stage: 1 }, alice)), 'wrong-stage');
  assert.equal(take(world.sign(register, { stage: 0 }, alice)), 'accepted');
  assert.equal(chainOf(world.state).bonded, 1_000n);
  assert.equal(take(world.sign(register, { stage: 0 }, alice)), 'already-registered');
  assert.equal(take(world.sign(unstake, { amount: 400n }, alice)), 'accepted');
  assert.equal(chainOf(world.state).bonded, 600n);
  nextEpoch(world);
  assert.equal(weights(world)[alice.nodeId], undefined, 'too little stake is left');
  assert.equal(take(world.sign(leave, {}, alice)), 'accepted');
  assert.equal(chainOf(world.state).bonded, 0n);
  world.checkSupply();
});

test('unstaked money is free after its time, at the next transaction', () => {
  const world = ledgerWorld({ founders: 1, policy });
  bond(world, alice, 1_000n);
  world.advance([world.sign(unstake, { amount: 300n }, alice)]);
  const pay = () => world.sign(transfer, { to: bob.nodeId, amount: 300n }, alice);
  assert.equal(codeOf(world.take(world.block([pay()], 59_999))), 'overdrawn');
  world.advance([pay()], 60_000);
  assert.equal(world.balance(bob.nodeId), 300n);
  assert.deepEqual(accountOf(world.state, alice.nodeId).unbonding, []);
  world.checkSupply();
});

test('too many small amounts on their way back are refused', () => {
  const world = ledgerWorld({ founders: 1, policy });
  bond(world, alice, 1_000n);
  world.advance(Array.from({ length: 32 }, () => world.sign(unstake, { amount: 1n }, alice)));
  assert.equal(
    codeOf(world.take(world.block([world.sign(unstake, { amount: 1n }, alice)]))),
    'too-many-unbonding',
  );
});

test('an equivocator loses vote, founder weight and stake, and once only', () => {
  const world = ledgerWorld({ founders: 4, policy });
  const guilty = world.founders[0]!;
  bond(world, guilty, 2_000n);
  world.advance([world.sign(unstake, { amount: 500n }, guilty)]);
  assert.equal(chainOf(world.state).bonded, 1_500n);
  const accuse = () =>
    world.sign(equivocation, { accused: guilty.nodeId, evidence: new Uint8Array([1]) }, alice);
  assert.equal(
    codeOf(
      world.take(
        world.block([world.sign(equivocation, { accused: bob.nodeId, evidence: new Uint8Array() }, alice)]),
      ),
    ),
    'unknown-member',
  );
  world.advance([accuse()]);
  assert.equal(world.balance(alice.nodeId), 1_000n, 'half of stake and of what was on its way back');
  assert.equal(chainOf(world.state).burned, 1_000n);
  assert.equal(chainOf(world.state).bonded, 0n);
  const [slashKey] = world.state.keys('slash');
  assert.equal(world.state.get('slash', slashKey!)!.reason, 'equivocation');
  assert.equal(codeOf(world.take(world.block([accuse()]))), 'already-convicted');
  nextEpoch(world);
  assert.equal(weights(world)[guilty.nodeId], undefined);
  assert.equal(chainOf(world.state).voters.length, 3);
  bond(world, guilty, 5_000n);
  assert.equal(codeOf(world.take(world.block([world.sign(register, { stage: 0 }, guilty)]))), 'convicted');
  world.checkSupply();
});

test('when everybody leaves, those that voted go on', () => {
  const world = ledgerWorld({ founders: 3, policy });
  const before = weights(world);
  world.advance(world.founders.map((key) => world.sign(leave, {}, key)));
  nextEpoch(world);
  assert.deepEqual(weights(world), before);
});
