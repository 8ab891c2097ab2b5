/** Who proposes nothing is dropped, for a small price, and comes back; never so many that the rest could not be trusted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type LedgerWorld, ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import { electVoters } from './members.ts';
import { accountOf, chainOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import { silentVoters } from './silence.ts';
import { leave } from './transactions/leave.ts';
import { register } from './transactions/register.ts';
import { stake } from './transactions/stake.ts';

const policy: Partial<LedgerPolicy> = {
  epochBlocks: 12,
  silentTurns: 3,
  silenceFine: 10,
  memberStakeMin: 1_000,
  founderFadeStake: 1_000_000,
};

/** Blocks by the voters of each moment in turn, but for those who are silent. */
function run(world: LedgerWorld, silent: ReadonlySet<string>, blocks: number): void {
  for (let i = 0; i < blocks; i++) world.advance([], 1_000, (nodeId) => !silent.has(nodeId));
}

const voters = (world: LedgerWorld) => new Set(chainOf(world.state).voters.map(([nodeId]) => nodeId));
const reasons = (world: LedgerWorld) =>
  world.state.keys('slash').map((key) => {
    const { node, reason, amount } = world.state.get('slash', key)!;
    return [node, reason, amount];
  });

test('one of four proposes nothing: it is dropped at the end of the epoch, pays a little, and may come back', () => {
  const world = ledgerWorld({ founders: 4, policy });
  const gone = world.founders[1]!;
  world.endow(gone.nodeId, 900n);
  world.advance([world.sign(stake, { amount: 900n }, gone)], 1_000, (nodeId) => nodeId !== gone.nodeId);
  run(world, new Set([gone.nodeId]), 10);
  assert.deepEqual(reasons(world), []);
  run(world, new Set([gone.nodeId]), 1);
  assert.deepEqual(reasons(world), [[gone.nodeId, 'silence', 9n]]);
  assert.equal(voters(world).has(gone.nodeId), false);
  assert.equal(voters(world).size, 3);
  assert.equal(accountOf(world.state, gone.nodeId).stake, 891n);
  world.checkSupply();
  const back = () => {
    const taken = world.take(world.block([world.sign(register, { stage: 0 }, gone)]));
    return taken.ok ? 'accepted' : taken.code;
  };
  assert.equal(back(), 'jailed');
  run(world, new Set(), 12);
  assert.equal(back(), 'accepted');
  world.checkSupply();
  assert.equal(voters(world).has(gone.nodeId), false, 'from the next epoch on');
  run(world, new Set(), 11);
  assert.ok(voters(world).has(gone.nodeId));
  // Its turns count anew.
  assert.deepEqual(silentVoters(world.state, world.constants.policy), []);
  run(world, new Set(), 24);
  assert.equal(reasons(world).length, 1);
  assert.ok(voters(world).has(gone.nodeId));
});

test('a pause that is shorter costs nothing, nor does leaving', () => {
  const world = ledgerWorld({ founders: 4, policy });
  const slow = world.founders[2]!;
  const left = world.founders[3]!;
  for (let i = 0; i < 4; i++) {
    run(world, new Set([slow.nodeId]), 11);
    world.advance([], 1_000, (nodeId) => nodeId === slow.nodeId);
  }
  world.advance([world.sign(leave, {}, left)]);
  run(world, new Set([left.nodeId]), 30);
  assert.deepEqual(reasons(world), []);
  assert.equal(world.state.get('member', left.nodeId)?.jailedAt, 0);
});

test('of three nobody is dropped, and without the rule nobody ever', () => {
  for (const [founders, changes] of [
    [3, {}],
    [7, { silentTurns: 0 }],
  ] as const) {
    const world = ledgerWorld({ founders, policy: { ...policy, ...changes } });
    run(world, new Set([world.founders[0]!.nodeId]), 60);
    assert.deepEqual(reasons(world), []);
    assert.equal(voters(world).size, founders);
  }
});

test('whoever is silent, for however long: dropped are less than a third of the weight, and nobody who proposes', () => {
  const plans = fc.record({
    founders: fc.integer({ min: 3, max: 9 }),
    silent: fc.array(fc.nat(8), { maxLength: 8 }),
    stakes: fc.array(fc.integer({ min: 0, max: 40 }), { minLength: 9, maxLength: 9 }),
    blocks: fc.integer({ min: 12, max: 90 }),
  });
  fc.assert(
    fc.property(plans, (plan) => {
      const world = ledgerWorld({ founders: plan.founders, policy: { ...policy, founderFadeStake: 40_000 } });
      for (const [i, { nodeId }] of world.founders.entries())
        world.endow(nodeId, BigInt(1_000 * plan.stakes[i]!));
      const bonds = world.founders.flatMap((key, i) =>
        plan.stakes[i]! > 0 ? [world.sign(stake, { amount: BigInt(1_000 * plan.stakes[i]!) }, key)] : [],
      );
      world.advance(bonds);
      const silent = new Set(plan.silent.map((i) => world.founders[i % plan.founders]!.nodeId));
      if (silent.size === plan.founders) silent.delete(world.founders[0]!.nodeId);
      for (let i = 0; i < plan.blocks; i++) {
        if ([...voters(world)].every((nodeId) => silent.has(nodeId))) break;
        world.advance([], 1_000, (nodeId) => !silent.has(nodeId));
      }
      world.checkSupply();
      const { state, constants } = world;
      const jailed = world.founders.filter(({ nodeId }) => state.get('member', nodeId)!.jailedAt > 0);
      assert.ok(jailed.every(({ nodeId }) => silent.has(nodeId)));
      // Elected as if nobody had been dropped, those that were have less than a third.
      const rows = new Map(
        jailed.map(({ nodeId }) => [nodeId, { ...state.get('member', nodeId)!, registered: true }]),
      );
      const whole: Parameters<typeof electVoters>[0] = {
        ...state,
        get: (table, key) =>
          table === 'member' && rows.get(key) ? (rows.get(key) as never) : state.get(table, key),
      };
      const weights = electVoters(whole, constants.policy, chainOf(state).bonded);
      const all = weights.reduce((sum, [, weight]) => sum + weight, 0);
      const out = weights.reduce((sum, [nodeId, weight]) => sum + (rows.has(nodeId) ? weight : 0), 0);
      assert.ok(jailed.length === 0 || 3 * out < all, `${out} of ${all}`);
    }),
    { numRuns: 40 },
  );
});

test('a newcomer has as many turns as everybody else before it counts as silent', () => {
  const world = ledgerWorld({ founders: 4, policy });
  const newcomer = namedKey('newcomer');
  run(world, new Set(), 24);
  world.endow(newcomer.nodeId, 1_000n);
  world.advance([world.sign(stake, { amount: 1_000n }, newcomer)]);
  world.advance([world.sign(register, { stage: 0 }, newcomer)]);
  const dead = new Set([newcomer.nodeId]);
  run(world, dead, 10);
  assert.ok(voters(world).has(newcomer.nodeId));
  run(world, dead, 12);
  assert.ok(voters(world).has(newcomer.nodeId), 'twelve of the fifteen blocks that three turns of five are');
  run(world, dead, 12);
  assert.equal(voters(world).has(newcomer.nodeId), false);
});
