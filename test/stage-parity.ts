/**
 * The same training done by one replica of the whole model and by a chain of stages with f32 rows between them: what
 * must agree to the last bit, on whatever engine.
 */
import assert from 'node:assert/strict';
import { createLocalReplica, type ReplicaSettings } from '../src/diloco/local-replica.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { ModelConfig } from '../src/model/config.ts';
import type { PipelineStage } from '../src/optim/pipeline-stage.ts';
import { type Batch, gradientScaleOf, type StepResult } from '../src/optim/stage-trainer.ts';
import type { Outcome } from '../src/std/outcome.ts';
import { seededRandom, uniformBelow } from '../src/std/random.ts';
import type { Engine } from '../src/tensor/engine.ts';
import { tinySettings } from './tiny-replica.ts';

const path = 'driver';

export function accepted<T>(outcome: Outcome<T>): T {
  assert.ok(outcome.ok, outcome.ok ? '' : `${outcome.code}: ${outcome.detail}`);
  return outcome.value;
}

/** The microbatch through all stages and back, as the Driver and those after it do it; its loss. */
export async function trainMicrobatch(
  stages: readonly PipelineStage[],
  id: string,
  { tokens, labels }: Batch,
  onPath = path,
): Promise<number> {
  const last = stages.length - 1;
  let entry: Int32Array | Float32Array = tokens;
  for (const stage of stages.slice(0, last))
    entry = accepted(await stage.forward({ path: onPath, id, entry }));
  let back = accepted(await stages[last]!.backward({ path: onPath, id, entry, target: labels }));
  const { loss } = back;
  for (const stage of stages.slice(0, last).reverse())
    back = accepted(await stage.backward({ path: onPath, id, target: back.inputGradient! }));
  assert.ok(loss !== null && back.inputGradient === null);
  return loss;
}

/** Tensors by name; what differs is named and not printed. */
export function checkTensors(
  made: Readonly<Record<string, Float32Array>>,
  expected: Readonly<Record<string, Float32Array>>,
): void {
  assert.deepEqual(Object.keys(made).sort(), Object.keys(expected).sort());
  const differing = Object.keys(expected).filter((name) => {
    const tensor = made[name]!;
    return (
      tensor.length !== expected[name]!.length || expected[name]!.some((x, i) => !Object.is(x, tensor[i]))
    );
  });
  assert.deepEqual(differing, []);
}

/** One step through a chain of stages. */
export async function pipelineStep(
  stages: readonly PipelineStage[],
  batches: readonly Batch[],
  learningRate: number,
  clip: number,
): Promise<StepResult> {
  const ids = batches.map((_, i) => `m${i}`);
  let total = 0;
  for (const [i, batch] of batches.entries()) total += await trainMicrobatch(stages, ids[i]!, batch);
  const squares: number[] = [];
  for (const stage of stages) squares.push(...accepted(await stage.prepareStep({ path, ids })));
  const norm = Math.sqrt(squares.reduce((sum, square) => sum + square, 0));
  const scale = gradientScaleOf(norm, batches.length, clip);
  for (const stage of stages) accepted(await stage.applyStep({ path, learningRate, gradientScale: scale }));
  return { loss: total / batches.length, gradientNorm: norm / batches.length };
}

export interface Parity {
  readonly engine: () => Engine | Promise<Engine>;
  readonly config: ModelConfig;
  readonly batch: number;
  readonly sequence: number;
  /** Microbatches in each step. */
  readonly steps: readonly number[];
  /** Numbers of stages to compare with the whole model. */
  readonly cuts: readonly number[];
}

/** Losses, norms, held-out losses and weights of every cut are those of the whole model, bit for bit. */
export async function checkParity({ engine, config, batch, sequence, steps, cuts }: Parity): Promise<void> {
  const inner = { ...tinySettings.inner, clip: 0.2 };
  const settings: ReplicaSettings = { ...tinySettings, inner, config, batch, sequence };
  const random = seededRandom(new Uint8Array(16).fill(7));
  const ids = () =>
    Int32Array.from({ length: batch * sequence }, () => uniformBelow(random, config.vocabulary));
  const made = steps.map((count) => Array.from({ length: count }, () => ({ tokens: ids(), labels: ids() })));
  const heldOut = made[0]![0]!;

  const whole = await createLocalReplica({ ...settings, engine: await engine() });
  const expected: StepResult[] = [];
  for (const batches of made) expected.push(await whole.trainStep(batches, 1e-2));
  assert.ok(
    expected.some(({ gradientNorm }) => gradientNorm > inner.clip),
    'clipping is part of it',
  );
  const weights = await whole.exportWeights('weights');
  const loss = await whole.evaluate([heldOut]);
  await whole.close();

  for (const count of cuts) {
    const stages: StageReplica[] = [];
    for (let stageIndex = 0; stageIndex < count; stageIndex++)
      stages.push(
        await createLocalReplica({ ...settings, engine: await engine(), stages: count, stageIndex }),
      );
    for (const [step, batches] of made.entries())
      assert.deepEqual(
        await pipelineStep(stages, batches, 1e-2, inner.clip),
        expected[step],
        `${count} stages, step ${step}`,
      );
    const parts = await Promise.all(stages.map((stage) => stage.exportWeights('weights')));
    checkTensors(Object.assign({}, ...parts), weights);
    let rows: Int32Array | Float32Array = heldOut.tokens;
    for (const stage of stages.slice(0, -1)) rows = await stage.evaluateRows(rows);
    assert.equal(
      await stages.at(-1)!.evaluateLoss(rows, heldOut.labels),
      loss,
      `${count} stages: held-out loss`,
    );
    for (const stage of stages) {
      const { step, optimizerSteps } = await stage.position();
      assert.deepEqual([step, optimizerSteps], [steps.length, steps.length]);
      await stage.close();
    }
  }
}
