/** The inner step on the interpreter; that its numbers are PyTorch's is what the fixtures under test/ show. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { initialParameter } from '../model/initialize.ts';
import { embeddingName, wholeModel } from '../model/parameters.ts';
import { seededRandom, uniformBelow } from '../std/random.ts';
import { createInterpreter } from '../tensor/interpreter.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { createSegments, type Segment } from './segments.ts';
import { type Batch, createStageTrainer, type InnerOptions } from './stage-trainer.ts';

const sequence = 8;
const inner: InnerOptions = { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1e9 };

interface Made {
  readonly tied?: boolean;
  readonly batch?: number;
  readonly inner?: Partial<InnerOptions>;
}

async function trainerOf({ tied = false, batch = 2, ...made }: Made = {}) {
  const config = { ...tinyConfig, tiedEmbeddings: tied };
  const stage = wholeModel(config);
  const segments = createSegments({
    config,
    stage,
    createMemory: createKernelMemory,
    embeddingScratchBytes: batch * sequence * (config.width + 1) * 4 + 4096,
  });
  for (const { parameters, weightViews } of segments)
    for (const { name, shape } of parameters)
      initialParameter(new Uint8Array(32).fill(9), name, shape, config, weightViews[name]);
  const options = { engine: createInterpreter(), config, stage, segments, batch, sequence };
  return { segments, trainer: await createStageTrainer({ ...options, inner: { ...inner, ...made.inner } }) };
}

const random = seededRandom(new Uint8Array(16).fill(5));
const ids = (rows: number) =>
  Int32Array.from({ length: rows * sequence }, () => uniformBelow(random, tinyConfig.vocabulary));
const batchOf = (rows: number): Batch => ({ tokens: ids(rows), labels: ids(rows) });
const rowsOf = ({ tokens, labels }: Batch, from: number, to: number): Batch => ({
  tokens: tokens.subarray(from * sequence, to * sequence),
  labels: labels.subarray(from * sequence, to * sequence),
});

/** ‖a − scale·b‖ ÷ ‖a‖ of the gradients. */
function distance(a: readonly Segment[], b: readonly Segment[], scale: number): number {
  let difference = 0;
  let size = 0;
  for (const [i, segment] of a.entries())
    for (const [j, value] of segment.slabs.gradients.entries()) {
      difference += (value - scale * b[i]!.slabs.gradients[j]!) ** 2;
      size += value ** 2;
    }
  assert.ok(size > 0);
  return Math.sqrt(difference / size);
}

for (const tied of [false, true]) {
  const name = tied ? 'tied' : 'untied';

  test(`${name}: microbatches add up to the one big batch`, async () => {
    const big = batchOf(4);
    const whole = await trainerOf({ tied, batch: 4 });
    const parts = await trainerOf({ tied, batch: 2 });
    const expected = await whole.trainer.step([big], 1e-3, 1);
    const made = await parts.trainer.step([rowsOf(big, 0, 2), rowsOf(big, 2, 4)], 1e-3, 1);
    assert.ok(Math.abs(made.loss - expected.loss) < 1e-6);
    assert.ok(Math.abs(made.gradientNorm / expected.gradientNorm - 1) < 1e-5);
    assert.ok(distance(whole.segments, parts.segments, 1 / 2) < 1e-5);
  });

  test(`${name}: learns what it is shown, leaves w_r alone, and keeps the padding zero`, async () => {
    const { segments, trainer } = await trainerOf({ tied });
    const one = batchOf(2);
    const first = await trainer.evaluate([one], 'weights');
    let last = Number.POSITIVE_INFINITY;
    for (let step = 1; step <= 15; step++) last = (await trainer.step([one], 1e-2, step)).loss;
    assert.ok(last < first - 0.3, `${first} to ${last}`);
    for (const { slabs, usedLength } of segments) {
      for (const slab of Object.values<Float32Array>({ ...slabs }))
        assert.ok(slab.subarray(usedLength).every((x) => x === 0));
      assert.ok(slabs.base.every((x) => x === 0) && slabs.velocity.every((x) => x === 0));
    }
    await trainer.close();
  });

  test(`${name}: the embedding's gradient is gathered over all rows of a token`, async () => {
    const { segments, trainer } = await trainerOf({ tied });
    const tokens = new Int32Array(2 * sequence).fill(3);
    await trainer.step([{ tokens, labels: tokens }], 0, 1);
    const { gradientViews } = segments.find(({ weightViews }) => weightViews[embeddingName])!;
    const rows = gradientViews[embeddingName]!;
    const squares = Array.from({ length: tinyConfig.vocabulary }, (_, row) =>
      rows.subarray(row * tinyConfig.width, (row + 1) * tinyConfig.width).reduce((sum, x) => sum + x * x, 0),
    );
    assert.ok(squares[3]! > 0);
    // Untied, tokens that did not come have no gradient; tied, the head reaches every row.
    assert.equal(squares.filter((sum) => sum > 0).length, tied ? tinyConfig.vocabulary : 1);
  });
}

test('weight decay moves matrices only', async () => {
  const one = batchOf(2);
  const rate = 1e-2;
  const without = await trainerOf({ inner: { weightDecay: 0 } });
  const decayed = await trainerOf({ inner: { weightDecay: 0.5 } });
  const before = decayed.segments.map(({ slabs }) => slabs.weights.slice());
  await without.trainer.step([one], rate, 1);
  await decayed.trainer.step([one], rate, 1);
  for (const [i, { slabs, matrixLength, usedLength }] of decayed.segments.entries()) {
    const plain = without.segments[i]!.slabs.weights;
    for (let j = 0; j < usedLength; j++) {
      const expected = j < matrixLength ? plain[j]! - rate * 0.5 * before[i]![j]! : plain[j]!;
      assert.ok(Math.abs(slabs.weights[j]! - expected) < 1e-6, `element ${j}`);
      if (j >= matrixLength) assert.equal(slabs.weights[j], plain[j]);
    }
  }
});

test('clipping scales by the global norm, and reports the norm before it', async () => {
  const one = batchOf(2);
  const free = await trainerOf({ inner: { clip: 1e9 } });
  const clipped = await trainerOf({ inner: { clip: 1e-3 } });
  const { gradientNorm } = await free.trainer.step([one], 0, 1);
  assert.equal((await clipped.trainer.step([one], 0, 1)).gradientNorm, gradientNorm);
  const momentNorm = (segments: readonly Segment[]) =>
    Math.sqrt(segments.reduce((sum, { memory, slabs }) => memory.sumSquares(slabs.firstMoments, sum), 0));
  assert.ok(Math.abs(momentNorm(free.segments) / (0.1 * gradientNorm) - 1) < 1e-5);
  assert.ok(Math.abs(momentNorm(clipped.segments) / (0.1 * 1e-3) - 1) < 1e-5);
});

test('a batch of another size is a bug and changes nothing', async () => {
  const { segments, trainer } = await trainerOf();
  const before = segments.map(({ slabs }) => slabs.weights.slice());
  await assert.rejects(trainer.step([batchOf(2), batchOf(1)], 1e-3, 1), /another size/);
  await assert.rejects(trainer.step([], 1e-3, 1), /needs a batch/);
  assert.deepEqual(
    segments.map(({ slabs }) => slabs.weights),
    before,
  );
});
