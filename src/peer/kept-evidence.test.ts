/** What a node writes when it stops is what an audit needs of it, checked by the audit itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditDataset, auditOne, interpretedExecutor, interpretedProver } from '../../test/audit-world.ts';
import { claimIn, stageRules, stageWorld, workIn } from '../../test/stage-world.ts';
import { stageStepsOf } from '../audit/stage-work.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { memoryStore } from '../std/store.ts';
import { openKeptEvidence } from './kept-evidence.ts';

test('both intervals of a round stand with what was kept, by a node that knows nothing else', async () => {
  const prover = await interpretedProver('stopping');
  await prover.round();
  const claim = await prover.round();
  const store = memoryStore();
  const before = await openKeptEvidence(store);
  assert.ok(before.isEmpty);
  assert.ok(await before.keep(prover.replica, undefined, [1, 0]));
  const kept = await openKeptEvidence(store);
  const replica = { ...prover.replica, evidenceIndex: kept.index, evidenceLeaf: kept.leaf } as StageReplica;
  const executor = await interpretedExecutor();
  for (const interval of [0, 1])
    assert.equal((await auditOne({ replica }, claim, interval, executor)).code, 'valid');
  assert.equal(await kept.index('00'.repeat(32)), undefined);
  assert.equal(await kept.leaf(claim.states[0]!, 1_000), undefined);
  await kept.forget();
  assert.ok(kept.isEmpty);
  assert.deepEqual(await store.list(''), []);
  assert.equal((await auditOne({ replica }, claim, 0, executor)).verdict, 'withheld');
});

test('of a stage the list, the evidence and the rows are kept, too', async () => {
  const world = await stageWorld();
  for (let step = 0; step < stageRules.innerSteps; step++) await world.takeStep(step);
  const prover = world.provers[1]!;
  const store = memoryStore();
  await (await openKeptEvidence(store)).keep(prover.replica, workIn(world, prover), [0]);
  const kept = await openKeptEvidence(store);
  const claim = await claimIn(prover);
  const rules = { ...stageRules, flatLength: 0 };
  const steps = await stageStepsOf({ claim, rules, dataset: auditDataset, fetchBytes: kept.bytes }, 0, 4);
  assert.ok(steps.ok && steps.value.length === 4);
  assert.ok(await kept.index(claim.states[2]!));
});

test('what there is no room for is left out, the newest round comes first, and the node is told', async () => {
  const prover = await interpretedProver('large');
  const claims = [await prover.round(), await prover.round()];
  const kept = await openKeptEvidence(memoryStore());
  assert.equal(await kept.keep(prover.replica, undefined, [0, 1], 20_000), false);
  assert.ok(await kept.index(claims[1]!.base), 'of the newest');
  assert.equal(await kept.index(claims[0]!.states[1]!), undefined);
});

test('a round that the replica has forgotten leaves nothing, and a store that fails is an error', async () => {
  const prover = await interpretedProver('forgetful');
  const store = memoryStore();
  const kept = await openKeptEvidence(store);
  assert.ok(await kept.keep(prover.replica, undefined, [7]));
  assert.ok(kept.isEmpty);
  const full = { ...store, put: async () => Promise.reject(new Error('disk full')) };
  await assert.rejects((await openKeptEvidence(full)).keep(prover.replica, undefined, [0]), /disk full/);
});
