/** What a node writes when it stops is what an audit needs of it, checked by the audit itself. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditDataset, auditOne, interpretedExecutor, interpretedProver } from '../../test/audit-world.ts';
import { auditShelved, claimIn, stageRules, stageWorld, workIn } from '../../test/stage-world.ts';
import { wantedStates } from '../audit/claim.ts';
import { createEvidenceShelf, shelveEvidence, type WantedState } from '../audit/evidence.ts';
import { provideEvidence } from '../audit/provide.ts';
import { stageStepsOf } from '../audit/stage-work.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { inTurn } from '../std/in-turn.ts';
import { memoryStore } from '../std/store.ts';
import { openKeptEvidence } from './kept-evidence.ts';

const none = { shelf: createEvidenceShelf({ bytesMax: 1e9 }), work: undefined };

test('both intervals of a round stand with what was kept, by a node that knows nothing else', async () => {
  const prover = await interpretedProver('stopping');
  await prover.round();
  const claim = await prover.round();
  const store = memoryStore();
  const before = await openKeptEvidence(store);
  assert.ok(before.isEmpty);
  assert.ok(await before.keep({ ...none, replica: prover.replica, rounds: [1, 0] }));
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
  await (await openKeptEvidence(store)).keep({
    ...none,
    replica: prover.replica,
    work: workIn(world, prover),
    rounds: [0],
  });
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
  assert.equal(await kept.keep({ ...none, replica: prover.replica, rounds: [0, 1] }, 20_000), false);
  assert.ok(await kept.index(claims[1]!.base), 'of the newest');
  assert.equal(await kept.index(claims[0]!.states[1]!), undefined);
});

test('a round that the replica has forgotten leaves nothing, and a store that fails is an error', async () => {
  const prover = await interpretedProver('forgetful');
  const store = memoryStore();
  const kept = await openKeptEvidence(store);
  assert.ok(await kept.keep({ ...none, replica: prover.replica, rounds: [7] }));
  assert.ok(kept.isEmpty);
  const own = { ...none, replica: prover.replica, rounds: [0] };
  const full = { ...store, put: async () => Promise.reject(new Error('disk full')) };
  await assert.rejects((await openKeptEvidence(full)).keep(own), /disk full/);
});

test('what is drawn already is kept from the shelf, though the replica has forgotten it', async () => {
  const world = await stageWorld();
  for (let step = 0; step < stageRules.innerSteps; step++) await world.takeStep(step);
  const prover = world.provers[2]!;
  const { replica } = prover;
  const claim = await claimIn(prover);
  const { flatLength } = await replica.info();
  const shelf = createEvidenceShelf({ bytesMax: 1e9 });
  const rules = { ...stageRules, flatLength };
  const own = { claim, interval: 1, rules, dataset: auditDataset, work: workIn(world, prover) };
  assert.ok((await provideEvidence({ ...own, replica, turn: inTurn(), shelf })).ok);
  const store = memoryStore();
  const { record, ...others } = replica;
  const forgetful = { ...others, record: async () => undefined };
  assert.ok(record);
  await (await openKeptEvidence(store)).keep({ shelf, replica: forgetful, work: undefined, rounds: [0] });
  const kept = await openKeptEvidence(store);
  const again = createEvidenceShelf({ bytesMax: 1e9 });
  for (const hash of shelf.contents().bytes) again.putBytes(hash, (await kept.bytes(hash))!);
  const wanted = Object.values(wantedStates(claim, 1)) as WantedState[];
  const moved = await shelveEvidence(kept, again, wanted, flatLength);
  assert.ok(moved.ok, JSON.stringify(moved));
  assert.equal((await auditShelved(claim, 1, again, flatLength)).code, 'valid');
});
