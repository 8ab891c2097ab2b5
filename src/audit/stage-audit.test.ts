/** Each kind of stage is audited on a real small model: honest work stands, and every lie is found, with its code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  auditStage,
  claimIn,
  keyOf,
  type StageProver,
  type StageWorld,
  stageRules,
  stages,
  stageWorld,
} from '../../test/stage-world.ts';
import { signNorm } from '../pipeline/seals.ts';
import { encodeStepEvidence, type StepEvidence, stepEvidenceHash } from '../pipeline/step-evidence.ts';
import { encodeWorkList, workHash, workOf } from '../pipeline/work-list.ts';
import { sha256Hex } from '../std/hash.ts';

const stageNames = ['first', 'middle', 'last'] as const;
const [first, middle, last] = [0, 1, 2];
const [early, late] = [0, 1];

async function trained(cheat: Parameters<typeof stageWorld>[0] = {}): Promise<StageWorld> {
  const world = await stageWorld(cheat);
  for (let step = 0; step < stageRules.innerSteps; step++) await world.takeStep(step);
  return world;
}

const honest = await trained();
/** A copy of a prover that claims other steps. */
const withSteps = (prover: StageProver, steps: readonly StepEvidence[]): StageProver => ({
  ...prover,
  steps: [...steps],
});

for (const [stage, name] of stageNames.entries()) {
  test(`${name} stage: honest work stands, with the very state`, async () => {
    const prover = honest.provers[stage]!;
    const claim = await claimIn(prover);
    for (const interval of [early, late]) {
      const found = await auditStage(honest, prover, claim, interval);
      assert.equal(found.code, 'valid', found.detail);
      assert.equal(found.stateHash, claim.states[interval + 1]);
    }
  });
}

/** Every fiftieth element the other way: a norm shows nothing. */
const garbage = (rows: Float32Array) => rows.map((x, i) => (i % 50 === 0 ? -x : x));

for (const [stage, name] of stageNames.entries()) {
  if (stage < last)
    test(`${name} stage: who updates itself honestly and sends garbage onward is found, its neighbours are not`, async () => {
      const world = await trained({ rows: (rows, of) => (of === stage ? garbage(rows) : rows) });
      for (const prover of world.provers) {
        const found = await auditStage(world, prover, await claimIn(prover), late);
        assert.equal(found.code, prover.stage === stage ? 'wrong-rows' : 'valid', found.detail);
      }
    });
  if (stage > first)
    test(`${name} stage: who sends a garbage gradient back is found, its neighbours are not`, async () => {
      const world = await trained({ gradient: (rows, of) => (of === stage ? garbage(rows) : rows) });
      for (const prover of world.provers) {
        const found = await auditStage(world, prover, await claimIn(prover), early);
        assert.equal(found.code, prover.stage === stage ? 'wrong-rows' : 'valid', found.detail);
      }
    });
}

test('a Driver with a wrong norm is found, those that took its steps are not', async () => {
  const world = await trained({ norm: (norm) => 1.5 * norm });
  for (const prover of world.provers) {
    const found = await auditStage(world, prover, await claimIn(prover), early);
    assert.equal(found.code, prover.stage === first ? 'wrong-norm' : 'valid', found.detail);
  }
});

test('who takes a step by a norm smaller than its own gradient is found', async () => {
  const world = await trained({ norm: () => 1e-3 });
  const prover = world.provers[last]!;
  assert.equal((await auditStage(world, prover, await claimIn(prover), early)).code, 'wrong-norm');
});

test('the steps of two Drivers stand, also where microbatches were made before another’s step', async () => {
  const world = await stageWorld();
  // Own steps 0 and 1 within an interval; 2 and 3 with a boundary between them, at which sums are made again.
  await world.takeInterleaved(0, 'other');
  await world.takeStep(1);
  await world.takeInterleaved(2, 'other');
  await world.takeStep(3, 'other');
  for (const stage of [middle, last]) {
    const prover = world.provers[stage]!;
    const times = prover.steps.map(({ microbatches: [one] }) => [one!.madeAt, one!.summedAt]);
    assert.deepEqual(times, [
      [0, 0],
      [0, 0],
      [2, 2],
      [3, 3],
      [3, 4],
      [5, 5],
    ]);
    const claim = await claimIn(prover);
    for (const interval of [0, 1, 2]) {
      const found = await auditStage(world, prover, claim, interval);
      assert.equal(found.code, 'valid', `${stageNames[stage]} ${interval}: ${found.detail}`);
      assert.equal(found.stateHash, claim.states[interval + 1]);
    }
    const lying = prover.steps.with(1, remade(prover.steps[1]!, 1));
    const changed = { ...claim, work: workHash(workOf(lying)) };
    const found = await auditStage(world, withSteps(prover, lying), changed, 0);
    assert.equal(found.code, 'update-mismatch', 'it was not made again there');
  }
});

const remade = (step: StepEvidence, summedAt: number): StepEvidence => ({
  ...step,
  microbatches: step.microbatches.map((one) => ({ ...one, summedAt })),
});

test('microbatches of other times than could have been are refused', async () => {
  const prover = honest.provers[middle]!;
  const claim = await claimIn(prover);
  const at = async (step: number, change: Partial<{ madeAt: number; summedAt: number }>) => {
    const changed = prover.steps[step]!.microbatches.map((one) => ({ ...one, ...change }));
    const steps = prover.steps.with(step, { ...prover.steps[step]!, microbatches: changed });
    const lying = { ...claim, work: workHash(workOf(steps)) };
    return (await auditStage(honest, withSteps(prover, steps), lying, late)).code;
  };
  assert.equal(await at(2, { madeAt: 3 }), 'wrong-work', 'before it was made');
  assert.equal(await at(2, { madeAt: 3, summedAt: 3 }), 'wrong-work', 'after the step');
  assert.equal(await at(2, { madeAt: 1, summedAt: 1 }), 'wrong-work', 'summed before the interval');
  assert.equal(await at(3, { madeAt: 2 }), 'wrong-work', 'before its own Driver’s step');
});

test('a repeated step is refused, and so is a list that is not of the steps claimed', async () => {
  for (const prover of honest.provers) {
    const claim = await claimIn(prover);
    const code = async (steps: readonly StepEvidence[], change: Partial<typeof claim> = {}) => {
      const lying = { ...claim, work: workHash(workOf(steps)), ...change };
      return (await auditStage(honest, withSteps(prover, steps), lying, early)).code;
    };
    const [one, two, three] = prover.steps as [StepEvidence, StepEvidence, StepEvidence];
    assert.equal(await code([one, one, two, three]), 'wrong-work');
    assert.equal(await code([one, two, three]), 'wrong-work');
    assert.equal(await code(prover.steps, { batches: 7, tokens: (claim.tokens / 8) * 7 }), 'wrong-work');
    assert.equal(await code([{ ...one, step: 9 }, ...prover.steps.slice(1)]), 'wrong-work');
    assert.equal(await code([{ ...one, round: 1 }, ...prover.steps.slice(1)]), 'unsigned-work');
  }
});

test('rows that nobody signed are refused: every signature counts', async () => {
  const other = keyOf('nobody').publicKey;
  const forge: readonly (readonly [readonly number[], (step: StepEvidence) => StepEvidence])[] = [
    [[first, middle, last], (step) => ({ ...step, norm: step.norm / 2 })],
    [[first, middle, last], (step) => ({ ...step, normSeal: { ...step.normSeal, publicKey: other } })],
    [[middle, last], (step) => ({ ...step, receipt: step.normSeal })],
    [[first, middle], (step) => ({ ...step, rest: { sums: [1], seal: step.rest!.seal } })],
    [[first, middle], (step) => withRows(step, { sentRows: sha256Hex(new Uint8Array(1)) })],
    [[first, middle], (step) => withRows(step, { target: sha256Hex(new Uint8Array(1)) })],
    [[middle, last], (step) => withRows(step, { entry: sha256Hex(new Uint8Array(1)) })],
    [[middle, last], (step) => withRows(step, { sentGradient: sha256Hex(new Uint8Array(1)) })],
  ];
  for (const [at, change] of forge)
    for (const stage of at) {
      const prover = honest.provers[stage]!;
      const steps = prover.steps.with(1, change(prover.steps[1]!));
      const claim = { ...(await claimIn(prover)), work: workHash(workOf(steps)) };
      const found = await auditStage(honest, withSteps(prover, steps), claim, early);
      assert.equal(found.code, 'unsigned-work', `${stageNames[stage]}: ${change}`);
      assert.equal(found.verdict, 'false');
    }
});

function withRows(step: StepEvidence, change: Partial<StepEvidence['microbatches'][number]>): StepEvidence {
  return { ...step, microbatches: step.microbatches.map((one) => ({ ...one, ...change })) };
}

test('a stage’s step has what a step of that stage has', async () => {
  const prover = honest.provers[middle]!;
  const steps = prover.steps.with(0, { ...prover.steps[0]!, receipt: null });
  const claim = { ...(await claimIn(prover)), work: workHash(workOf(steps)) };
  assert.equal((await auditStage(honest, withSteps(prover, steps), claim, early)).code, 'wrong-work');
  const own = honest.provers[first]!;
  const foreign = keyOf('foreign');
  const { round, step, norm, microbatches } = own.steps[0]!;
  const body = { driver: foreign.nodeId, round, step, norm, microbatches: microbatches.length };
  const normSeal = signNorm(stageRules.pipeline!.networkId, body, foreign);
  const taken = own.steps.with(0, { ...own.steps[0]!, driver: foreign.nodeId, normSeal });
  const stolen = { ...(await claimIn(own)), work: workHash(workOf(taken)) };
  assert.equal((await auditStage(honest, withSteps(own, taken), stolen, early)).code, 'wrong-work');
});

test('two nodes cannot claim one stage’s work', async () => {
  for (const prover of honest.provers) {
    const claim = { ...(await claimIn(prover)), nodeId: keyOf('another').nodeId };
    const found = await auditStage(honest, prover, claim, early);
    assert.equal(found.code, prover.stage === first ? 'wrong-work' : 'unsigned-work');
  }
});

test('withheld rows, evidence or list are no verdict on the work', async () => {
  const prover = honest.provers[middle]!;
  const claim = await claimIn(prover);
  const step = prover.steps[0]!;
  for (const withheld of [claim.work!, stepEvidenceHash(step), step.microbatches[1]!.sentGradient!]) {
    const found = await auditStage(honest, prover, claim, early, (hash, bytes) =>
      hash === withheld ? undefined : bytes,
    );
    assert.equal(found.verdict, 'withheld');
    assert.equal(found.stateHash, '0'.repeat(64));
  }
});

test('bytes that are no list and no evidence are the prover’s lie, for they have the hashes it committed to', async () => {
  const prover = honest.provers[last]!;
  const claim = await claimIn(prover);
  const bytes = new Uint8Array([1, 2, 3]);
  const lying = { ...claim, work: sha256Hex(bytes) };
  const found = await auditStage(honest, prover, lying, early, (hash, given) =>
    hash === lying.work ? bytes : given,
  );
  assert.equal(found.code, 'wrong-work');
  const list = workOf(prover.steps).map((one) => ({ ...one, evidence: sha256Hex(bytes) }));
  const other = { ...claim, work: workHash(list) };
  const again = await auditStage(honest, prover, other, early, (hash, given) =>
    hash === other.work ? encodeWorkList(list) : hash === sha256Hex(bytes) ? bytes : given,
  );
  assert.equal(again.code, 'wrong-work');
  assert.equal(stages, 3);
});

test('property: whatever a prover has committed to, an audit ends with a verdict', async () => {
  const byte = fc.record({ at: fc.nat(), to: fc.nat(255), inList: fc.boolean(), stage: fc.nat(stages - 1) });
  await fc.assert(
    fc.asyncProperty(byte, async ({ at, to, inList, stage }) => {
      const prover = honest.provers[stage]!;
      const change = (bytes: Uint8Array) => bytes.with(at % bytes.length, to);
      const list = workOf(prover.steps);
      const evidence = change(encodeStepEvidence(prover.steps[0]!));
      const named = encodeWorkList(list.with(0, { ...list[0]!, evidence: sha256Hex(evidence) }));
      const committed = inList ? change(encodeWorkList(list)) : named;
      const claim = { ...(await claimIn(prover)), work: sha256Hex(committed) };
      const found = await auditStage(honest, prover, claim, early, (hash, bytes) => {
        if (hash === claim.work) return committed;
        return hash === sha256Hex(evidence) ? evidence : bytes;
      });
      // What the list says of steps outside of the interval is for the audits of those.
      const isOther = inList || stepEvidenceHash(prover.steps[0]!) === sha256Hex(evidence);
      if (found.verdict === 'valid') assert.ok(isOther, `${at} ${to}`);
      else assert.match(found.code, /^(wrong-work|unsigned-work|withheld)$/);
    }),
    { numRuns: 150 },
  );
});
