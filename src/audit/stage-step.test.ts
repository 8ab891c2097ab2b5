/** A stage of several is audited on the rows that reached it: its own update, and what it sent onward. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accepted } from '../../test/stage-parity.ts';
import { tinyBatch, tinyReplica, tinySettings } from '../../test/tiny-replica.ts';
import { decodeStateIndex, leavesPerTensor } from '../diloco/local-state.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { gradientScaleOf } from '../optim/stage-trainer.ts';
import { decodeRows, encodeRows } from '../pipeline/row-codec.ts';
import { createInterpreter } from '../tensor/interpreter.ts';
import { createReExecutor, type ReExecution } from './re-execute.ts';
import type { StageMicrobatch, StageStep } from './stage-step.ts';

const config = { ...tinySettings.config, layers: 2 };
const settings = { ...tinySettings, config, stages: 2, recording: { intervalSteps: 2 } };
const path = 'driver';
const learningRate = 1e-2;
const travel = (rows: Float32Array) => accepted(decodeRows(encodeRows(rows, 'bf16'), 'bf16', rows.length));

/** Two steps of two microbatches through both stages; what each stage got and sent in them. */
async function trainBoth() {
  const [first, last] = await Promise.all(
    [0, 1].map((stageIndex) => tinyReplica({ ...settings, stageIndex })),
  );
  assert.ok(first && last);
  const steps: [StageStep, StageStep][] = [];
  for (let step = 0; step < 2; step++) steps.push(await trainStep(first, last, step));
  return { replicas: [first, last] as const, steps };
}

async function trainStep(first: StageReplica, last: StageReplica, step: number) {
  const seen: [StageMicrobatch[], StageMicrobatch[]] = [[], []];
  const ids = ['a', 'b'];
  for (const [i, id] of ids.entries()) {
    const { tokens, labels } = tinyBatch(2 * step + i);
    const y = travel(accepted(await first.forward({ path, id, entry: tokens })));
    const { inputGradient } = accepted(await last.backward({ path, id, entry: y.slice(), target: labels }));
    const dy = travel(inputGradient!);
    accepted(await first.backward({ path, id, target: dy.slice() }));
    seen[0].push({ entry: tokens, target: dy, sentRows: y });
    seen[1].push({ entry: y, target: labels, sentGradient: dy });
  }
  const squares = [];
  for (const stage of [first, last]) squares.push(...accepted(await stage.prepareStep({ path, ids })));
  const norm = Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
  const gradientScale = gradientScaleOf(norm, ids.length, settings.inner.clip);
  for (const stage of [first, last]) accepted(await stage.applyStep({ path, learningRate, gradientScale }));
  const made = (microbatches: StageMicrobatch[]): StageStep => ({
    microbatches,
    learningRate,
    gradientScale,
  });
  return [made(seen[0]), made(seen[1])] as [StageStep, StageStep];
}

/** Both ends of the first interval, as evidence would give them. */
async function requestOf(replica: StageReplica, steps: readonly StageStep[]): Promise<ReExecution> {
  const record = await replica.record(0);
  assert.ok(record);
  const perTensor = leavesPerTensor((await replica.info()).flatLength);
  const tensor = (hash: string, which: number) =>
    Promise.all(
      Array.from({ length: perTensor }, async (_, i) => {
        const bytes = await replica.evidenceLeaf(hash, which * perTensor + i);
        assert.ok(bytes);
        return bytes;
      }),
    );
  const state = async (hash: string) => ({
    weights: await tensor(hash, 0),
    firstMoments: await tensor(hash, 1),
    secondMoments: await tensor(hash, 2),
  });
  const [before, after] = record.boundaries;
  const index = accepted(decodeStateIndex((await replica.evidenceIndex(before!.hash))!));
  return {
    place: { round: 0, step: 0, optimizerSteps: 0 },
    start: await state(before!.hash),
    end: await state(after!.hash),
    feedbackLeaves: index.leaves.slice(3 * perTensor),
    steps,
    tolerance: 1e-3,
  };
}

const { replicas, steps } = await trainBoth();
const executors = await Promise.all(
  [0, 1].map((stageIndex) => createReExecutor({ ...settings, stageIndex, engine: createInterpreter() })),
);

for (const stage of [0, 1] as const) {
  const own = steps.map((step) => step[stage]);
  const spoil = (change: (microbatch: StageMicrobatch) => StageMicrobatch) =>
    own.map((step, at) => ({
      ...step,
      microbatches: step.microbatches.map((one, i) => (at === 1 && i === 0 ? change(one) : one)),
    }));
  const find = async (made: readonly StageStep[]) =>
    executors[stage]!.execute(await requestOf(replicas[stage], made));

  test(`stage ${stage + 1}: honest work stands, with the very state`, async () => {
    const found = await find(own);
    assert.equal(found.code, 'valid', found.detail);
    assert.equal(found.rows, 0);
    assert.equal(found.stateHash, (await replicas[stage].record(0))!.boundaries[1]!.hash);
  });

  test(`stage ${stage + 1}: who updates itself honestly and sends garbage onward is found out`, async () => {
    const garbage = (rows: Float32Array | undefined) => rows?.map((x, i) => (i % 50 === 0 ? -x : x));
    const found = await find(
      spoil((one) => ({
        ...one,
        ...(one.sentRows && { sentRows: garbage(one.sentRows)! }),
        ...(one.sentGradient && { sentGradient: garbage(one.sentGradient)! }),
      })),
    );
    assert.equal(found.code, 'wrong-rows');
  });

  test(`stage ${stage + 1}: who trained on other rows than it was sent is found out`, async () => {
    const zeros = (one: StageMicrobatch) => ({
      ...one,
      target: one.target.map(() => 0) as typeof one.target,
    });
    const found = await find(spoil(zeros));
    assert.equal(found.code, 'update-mismatch');
  });
}

test('a stage is not re-executed from tokens alone', async () => {
  const request = await requestOf(replicas[0], []);
  const whole = { ...request, steps: [{ batches: [tinyBatch(0)], learningRate }] };
  await assert.rejects(executors[0]!.execute(whole), { code: 'not-whole-model' });
});
