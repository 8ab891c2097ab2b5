import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ledgerWorld, namedKey } from '../../../test/ledger-world.ts';
import { findsTrue, hashOf, proverIn, settleAll } from '../../../test/proof-world.ts';
import { utf8 } from '../../std/bytes.ts';
import { merkleLeaf, merkleProof, merkleRoot } from '../../std/merkle.ts';
import { applyOne } from '../apply.ts';
import { chainOf, numberKey } from '../money.ts';
import { agreedState, newestRound } from '../rounds.ts';
import { commit } from '../state.ts';
import { stateHashOfRoot } from '../state-hash.ts';
import { type Challenge, challenge, challengeAnswer, challengedLeaf, challengeOf } from './challenge.ts';

const key = namedKey('prover');
const chunks = Array.from({ length: 7 }, (_, i) => utf8(`leaf ${i}`));
const leaves = chunks.map(merkleLeaf);
const plan = hashOf('plan');

/** A prover with a bond, in a block that asks it; round 1's agreed state is that of the chunks. */
function asked() {
  const world = ledgerWorld({ policy: { epochBlocks: 20, uptimeReward: 100 } });
  proverIn(world, key, 10).prove();
  settleAll(world, findsTrue);
  for (let i = 0; i < 20 && !challengeOf(world.state, key.nodeId, world.constants.policy); i++)
    world.advance();
  const round = newestRound(world.state)! + 1;
  const hash = stateHashOfRoot(plan, round, leaves.length, merkleRoot(leaves));
  const row = { ...world.state.get('round', numberKey(round - 1))!, agreed: [[0, hash] as const] };
  commit(world.state, [{ table: 'round', key: numberKey(round - 1), row }]);
  const [block, seed] = challengeOf(world.state, key.nodeId, world.constants.policy)!;
  const index = challengedLeaf(seed, key.nodeId, leaves.length);
  const body: Challenge = {
    block,
    round,
    stage: 0,
    plan,
    leaves: leaves.length,
    root: merkleRoot(leaves),
    leaf: leaves[index]!,
    path: merkleProof(leaves, index),
    answer: challengeAnswer(seed, key.nodeId, chunks[index]!),
  };
  const codeOf = (changed: Challenge, by = key) => {
    const done = applyOne(world.state, world.sign(challenge, changed, by), world.context());
    return done.ok ? 'accepted' : done.code;
  };
  return { world, body, index, codeOf };
}

test('an answered challenge is paid once', () => {
  const { world, body, codeOf } = asked();
  const before = world.balance(key.nodeId);
  world.advance([world.sign(challenge, body, key)]);
  assert.equal(world.balance(key.nodeId), before + 100n);
  assert.equal(codeOf(body), 'already-answered');
  world.checkSupply();
});

test('every wrong answer has its code', () => {
  const { body, index, codeOf } = asked();
  const other = (index + 1) % leaves.length;
  assert.equal(codeOf({ ...body, leaf: leaves[other]!, path: merkleProof(leaves, other) }), 'wrong-leaf');
  assert.equal(codeOf({ ...body, leaf: hashOf('x') }), 'wrong-leaf');
  assert.equal(codeOf({ ...body, root: hashOf('x') }), 'state-not-agreed');
  assert.equal(codeOf({ ...body, leaves: 8 }), 'state-not-agreed');
  assert.equal(codeOf({ ...body, round: body.round - 1 }), 'state-not-agreed');
  assert.equal(codeOf({ ...body, block: body.block + 1 }), 'not-challenged');
  assert.equal(codeOf(body, namedKey('no prover')), 'not-a-prover');
  const parsed = challenge.parse([1, 2, 3]);
  assert.ok(!parsed.ok && parsed.code === 'malformed-challenge');
  assert.deepEqual(challenge.parse(challenge.encode(body)), { ok: true, value: body });
});

test('only w_r is asked for, and never the same leaf of everybody', () => {
  const seed = hashOf('seed');
  const indices = Array.from({ length: 200 }, (_, i) => challengedLeaf(seed, `node ${i}`, 20));
  assert.equal(Math.max(...indices), 9);
  assert.equal(Math.min(...indices), 0);
  assert.equal(challengedLeaf(seed, 'node', 2), 0);
});

test('a state that a round overtook is good for two rounds more', () => {
  const { world, body, codeOf } = asked();
  const { state } = world;
  for (const expected of ['accepted', 'accepted', 'state-not-agreed']) {
    const round = newestRound(state)! + 1;
    const agreed = [[0, hashOf('w', round)] as const];
    const row = { ...state.get('round', numberKey(round - 1))!, agreed };
    commit(state, [{ table: 'round', key: numberKey(round), row }]);
    assert.ok(agreedState(state, round, 0));
    assert.equal(codeOf(body), expected);
  }
});

test('whatever is answered, and by whom, money comes only from good answers, one an epoch', () => {
  const field = fc.constantFrom('none', 'block', 'round', 'root', 'leaf', 'leaves', 'path');
  const tries = fc.array(fc.record({ field, stranger: fc.boolean(), advance: fc.boolean() }), {
    maxLength: 12,
  });
  fc.assert(
    fc.property(tries, (plan) => {
      const { world, body } = asked();
      const before = chainOf(world.state).minted;
      let paid = 0n;
      for (const { field: wrong, stranger, advance } of plan) {
        if (advance) world.advance();
        const bent: Challenge = {
          ...body,
          ...(wrong === 'block' && { block: body.block + 1 }),
          ...(wrong === 'round' && { round: body.round + 1 }),
          ...(wrong === 'root' && { root: hashOf('x') }),
          ...(wrong === 'leaf' && { leaf: hashOf('x') }),
          ...(wrong === 'leaves' && { leaves: 9 }),
          ...(wrong === 'path' && { path: [] }),
        };
        const taken = world.take(world.block([world.sign(challenge, bent, stranger ? namedKey('no') : key)]));
        if (taken.ok) {
          assert.equal(wrong, 'none');
          paid += 100n;
        }
        world.checkSupply();
      }
      assert.ok(paid <= 100n);
      assert.equal(chainOf(world.state).minted - before, paid);
    }),
    { numRuns: 40 },
  );
});
