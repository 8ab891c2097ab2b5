/** What a stage hands out for an audit of its own: list, evidence, rows and states, those made again that memory let go of. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditDataset } from '../../test/audit-world.ts';
import { auditShelved, claimIn, stageRules, stageWorld, workIn } from '../../test/stage-world.ts';
import { inTurn } from '../std/in-turn.ts';
import type { TrainingClaim } from './claim.ts';
import { createEvidenceShelf } from './evidence.ts';
import { provideEvidence, type StageWork } from './provide.ts';

/** Room for the two ends of the round, and for nothing between them. */
const world = await stageWorld({}, { recording: { intervalSteps: 2, bytesMax: 1 } });
for (let step = 0; step < 2; step++) await world.takeStep(step);
await world.takeInterleaved(2, 'other');
for (let step = 3; step < 4; step++) await world.takeStep(step);
// The later stages have made one step more, which is in no whole interval.
for (const { replica } of world.provers) await replica.contribute();
const claims = await Promise.all(world.provers.map(claimIn));

async function provide(
  stage: number,
  interval: number,
  change: { readonly claim?: TrainingClaim; readonly work?: StageWork } = {},
) {
  const prover = world.provers[stage]!;
  const { replica } = prover;
  const { flatLength } = await replica.info();
  const shelf = createEvidenceShelf({ bytesMax: 1e9 });
  const own = { claim: claims[stage]!, work: workIn(world, prover), ...change };
  const rules = { ...stageRules, flatLength };
  const from = { replica, turn: inTurn(), shelf };
  const done = await provideEvidence({ ...from, interval, rules, dataset: auditDataset, ...own });
  return { shelf, done, flatLength };
}

for (const stage of [0, 1, 2])
  test(`stage ${stage + 1}: every interval is provided, and stands with what is on the shelf alone`, async () => {
    const { replica } = world.provers[stage]!;
    const claim = claims[stage]!;
    const before = await replica.snapshot();
    const kept = (await replica.record(0))!.boundaries.map((boundary) => boundary.kept);
    assert.ok(
      kept.slice(1, -1).every((isKept) => !isKept),
      'memory let go of it',
    );
    for (const interval of claim.states.slice(1).keys()) {
      const { shelf, done, flatLength } = await provide(stage, interval);
      assert.ok(done.ok, JSON.stringify(done));
      const found = await auditShelved(claim, interval, shelf, flatLength);
      assert.equal(found.code, 'valid', found.detail);
      assert.equal(found.stateHash, claim.states[interval + 1]);
    }
    assert.deepEqual(await replica.snapshot(), before);
  });

test('what a stage has let go of, it cannot provide', async () => {
  const prover = world.provers[1]!;
  const work = workIn(world, prover);
  const codeOf = async (change: Parameters<typeof provide>[2]) => {
    const { done } = await provide(1, 0, change);
    return done.ok ? 'provided' : done.code;
  };
  assert.equal(await codeOf({ work: { ...work, rows: async () => undefined } }), 'not-kept');
  assert.equal(await codeOf({ work: { ...work, stepsOf: async () => undefined } }), 'not-kept');
  const fewer: StageWork = { ...work, stepsOf: async () => prover.steps.slice(1) };
  assert.equal(await codeOf({ work: fewer }), 'not-kept', 'another list than the proof names');
  assert.equal(await codeOf({ claim: { ...claims[1]!, work: '00'.repeat(32) } }), 'not-kept');
});
