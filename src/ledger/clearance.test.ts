import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ledgerWorld, namedKey } from '../../test/ledger-world.ts';
import {
  baseOf,
  closeRound,
  type Finding,
  findsFalse,
  findsTrue,
  hashOf,
  type Prover,
  proverIn,
  settleAll,
} from '../../test/proof-world.ts';
import { toHex } from '../std/bytes.ts';
import { announce, announcementFields } from './announcement.ts';
import { applyOne } from './apply.ts';
import { clearanceOf, wantsBlocks } from './clearance.ts';
import { numberKey } from './money.ts';
import { type Transaction, unsignedTransaction } from './transaction.ts';
import { round as closing } from './transactions/round.ts';

/** Two provers of one stage, who contributed to round 0 and prove round 1 before it is closed. */
function setup(policy = {}, founders = 4) {
  const world = ledgerWorld({ founders, policy: { auditedCohort: 3, bondProofs: 0, ...policy } });
  const provers = world.founders.slice(0, 2).map((key) => proverIn(world, key));
  const before = provers.map(
    ({ key }) => [0, key.nodeId, baseOf(0), hashOf('blob', key.nodeId), 20] as const,
  );
  closeRound(world, 0, before);
  return { world, provers };
}

type World = ReturnType<typeof setup>['world'];
const blobOf = ({ key }: Pick<Prover, 'key'>, round = 1) => hashOf('blob', key.nodeId, round);

function list(world: World, provers: readonly Pick<Prover, 'key'>[], round = 1): Transaction {
  const entries = provers.map(({ key }) => {
    const [base, blobHash] = [toHex(baseOf(round)), toHex(blobOf({ key }, round))];
    const one = { round, stage: 0, base, blobHash, blobBytes: 100, batches: 20 };
    return announcementFields(announce(world.constants.networkId, one, key));
  });
  return unsignedTransaction(closing, { round, entries });
}

const codeOf = (world: World, transaction: Transaction) => {
  const done = applyOne(world.state, transaction, world.context());
  return done.ok ? 'accepted' : done.code;
};
const proveBoth = ({ provers }: ReturnType<typeof setup>) =>
  provers.map((prover) => prover.prove({ contribution: blobOf(prover) }));
const clearances = ({ world, provers }: ReturnType<typeof setup>) =>
  provers.map((prover) => {
    const { nodeId } = prover.key;
    const one = { round: 1, stage: 0, nodeId, blobHash: blobOf(prover), contributors: 2 };
    return clearanceOf(world.state, world.constants, one);
  });

test('two contributions enter once their audits have found them true, and not before', () => {
  const both = setup();
  const { world, provers } = both;
  assert.equal(codeOf(world, list(world, provers)), 'contribution-not-audited');
  assert.deepEqual(clearances(both), ['unclaimed', 'unclaimed']);
  const keys = proveBoth(both);
  assert.equal(codeOf(world, list(world, provers)), 'contribution-not-audited');
  assert.deepEqual(clearances(both), ['claimed', 'claimed']);
  assert.ok(wantsBlocks(world.state));
  for (const key of keys) assert.deepEqual(world.state.get('duty', key)!.interval, 0, 'for certain');
  settleAll(world, findsTrue);
  assert.deepEqual(clearances(both), ['cleared', 'cleared']);
  assert.ok(!wantsBlocks(world.state));
  assert.equal(codeOf(world, list(world, provers)), 'accepted');
});

test('one that is found false never enters; the other does by itself', () => {
  const both = setup();
  const { world, provers } = both;
  const [guilty] = proveBoth(both);
  const finding: Finding = (auditor, key, duty) =>
    (key === guilty ? findsFalse : findsTrue)(auditor, key, duty);
  settleAll(world, finding);
  assert.deepEqual(clearances(both), ['refused', 'cleared']);
  assert.equal(codeOf(world, list(world, provers)), 'contribution-not-audited');
  assert.equal(codeOf(world, list(world, provers.slice(1))), 'accepted');
});

test('an audit says nothing of another contribution of the same node', () => {
  const both = setup();
  const { world, provers } = both;
  for (const prover of provers) prover.prove({ contribution: hashOf('another blob', prover.key.nodeId) });
  settleAll(world, findsTrue);
  assert.deepEqual(clearances(both), ['unclaimed', 'unclaimed']);
  assert.equal(codeOf(world, list(world, provers)), 'contribution-not-audited');
});

test('three contributions enter at once, and two where three were just now', () => {
  const { world, provers } = setup();
  const third = { key: world.founders[2]! };
  assert.equal(codeOf(world, list(world, [...provers, third])), 'accepted');
  closeRound(
    world,
    0,
    world.founders.map(({ nodeId }) => [0, nodeId, baseOf(0), hashOf('blob', nodeId), 20]),
  );
  assert.equal(codeOf(world, list(world, provers)), 'accepted');
});

test('round 0, a network of one, and a policy that wants none: nothing is audited first', () => {
  const { world } = setup();
  const solo = setup({}, 1);
  const [only] = solo.world.founders;
  assert.equal(codeOf(solo.world, list(solo.world, [{ key: only! }])), 'accepted');
  const free = setup({ auditedCohort: 0 });
  assert.equal(codeOf(free.world, list(free.world, free.provers)), 'accepted');
  const fresh = ledgerWorld({ policy: { auditedCohort: 3 } });
  assert.equal(codeOf(fresh, list(fresh, [{ key: fresh.founders[0]! }], 0)), 'accepted');
  assert.equal(world.state.get('round', numberKey(1)), undefined);
});

test('a proof of a round that is closed, or of a stranger to small cohorts, waits for nobody', () => {
  const { world, provers } = setup();
  world.advance([list(world, [])]);
  assert.deepEqual(world.state.get('round', numberKey(1))!.contributions, [], 'an empty list closes a round');
  const key = provers[0]!.prove({ round: 1, contribution: blobOf(provers[0]!) });
  assert.equal(world.state.get('duty', key)!.contribution, null);
  const stranger = proverIn(world, namedKey('stranger'));
  assert.equal(world.state.get('duty', stranger.prove({ contribution: null }))!.contribution, null);
});
