/** What the baseline asks of a replica, on one that only remembers. Real training is tested with the command. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StageReplica } from '../diloco/replica.ts';
import { buildMemoryDataset } from '../genesis/build.ts';
import { batchOf } from '../genesis/sampler.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { presets } from '../model/config.ts';
import { learningRate } from '../optim/schedule.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import { trainBaseline } from './baseline.ts';
import { createNetworkDocument, requireNetwork } from './network.ts';
import { defaultOuter, defaultTraining } from './policy.ts';

const keys = [1, 2, 3].map((byte) => keyPairFrom(new Uint8Array(32).fill(byte)));
const dataset = await buildMemoryDataset({
  name: 'test',
  sources: [
    {
      origin: 'test',
      licence: 'CC0-1.0',
      documents: async function* () {
        for (let i = 0; i < 50; i++) yield { id: String(i), text: `number ${i} of fifty, `.repeat(10) };
      },
    },
  ],
  vocabularySize: 300,
  shardTokens: 256,
});
const training = { ...defaultTraining(presets.tiny), innerSteps: 3, totalSteps: 8, batch: 2, sequence: 16 };
const network = requireNetwork(
  createNetworkDocument(
    {
      name: 'test',
      seed: new Uint8Array(32),
      model: presets.tiny,
      dataset: dataset.hash,
      training,
      outer: defaultOuter('f32', 'mean'),
      members: keys.map(({ publicKey }) => ({ publicKey, weight: 1 })),
    },
    keys[0]!,
  ),
  'test',
);

function remembering(lossOf: (step: number) => number) {
  const steps: { batches: readonly Batch[]; rate: number }[] = [];
  const evaluated: string[] = [];
  const replica = {
    trainStep: async (batches: readonly Batch[], rate: number) => {
      steps.push({ batches, rate });
      return { loss: lossOf(steps.length - 1), gradientNorm: 1 };
    },
    evaluate: async (batches: readonly Batch[], of: string) => {
      evaluated.push(`${of} ${batches.length} after ${steps.length}`);
      return 10 - steps.length;
    },
  } as unknown as StageReplica;
  return { replica, steps, evaluated };
}

let nowMs = 0;
const clock = { nowMs: () => (nowMs += 500), setTimer: () => () => undefined };
const never = new AbortController().signal;

test('each step takes the batch of every member at that position, at the rate of the schedule', async () => {
  const { replica, steps, evaluated } = remembering((step) => step);
  const report = await trainBaseline(
    { network, dataset, replica, clock, steps: 8, heldOutBatches: 2 },
    never,
  );
  assert.equal(steps.length, 8);
  for (const [step, { batches, rate }] of steps.entries()) {
    assert.equal(rate, learningRate(training, step));
    assert.equal(batches.length, keys.length);
    for (const [index, { nodeId }] of network.members.entries()) {
      const position = { round: Math.floor(step / 3), step: step % 3 };
      const { tokens, labels } = await batchOf({ dataset, nodeId, ...position, ...training });
      assert.deepEqual(batches[index], { tokens, labels });
    }
  }
  assert.deepEqual(
    evaluated,
    [0, 3, 6, 8].map((step) => `weights 2 after ${step}`),
  );
  const tokensPerStep = 3 * 2 * 16;
  assert.deepEqual(report, {
    steps: 8,
    tokens: 8 * tokensPerStep,
    initialHeldOutLoss: 10,
    finalHeldOutLoss: 2,
    losses: [0, 1, 2, 3, 4, 5, 6, 7],
    curve: [
      { step: 3, tokens: 3 * tokensPerStep, trainingLoss: 1, heldOutLoss: 7 },
      { step: 6, tokens: 6 * tokensPerStep, trainingLoss: 4, heldOutLoss: 4 },
      { step: 8, tokens: 8 * tokensPerStep, trainingLoss: 6.5, heldOutLoss: 2 },
    ],
    tokensPerSecond: 2 * tokensPerStep,
    interrupted: false,
  });
});

test('without held-out batches nothing is evaluated', async () => {
  const { replica, evaluated } = remembering(() => 1);
  const report = await trainBaseline(
    { network, dataset, replica, clock, steps: 4, heldOutBatches: 0 },
    never,
  );
  assert.deepEqual([evaluated, report.initialHeldOutLoss, report.finalHeldOutLoss], [[], null, null]);
  assert.deepEqual(
    report.curve.map((point) => [point.step, point.heldOutLoss]),
    [
      [3, null],
      [4, null],
    ],
  );
});

test('asked to stop, it ends after the step under way with what it has', async () => {
  const { replica, evaluated } = remembering(() => 1);
  const controller = new AbortController();
  const onStep = (step: number) => {
    if (step === 5) controller.abort();
  };
  const options = { network, dataset, replica, clock, steps: 8, heldOutBatches: 1, onStep };
  const report = await trainBaseline(options, controller.signal);
  assert.deepEqual([report.steps, report.interrupted, report.finalHeldOutLoss], [5, true, 7]);
  assert.equal(report.curve.at(-1)!.heldOutLoss, null);
  assert.equal(evaluated.length, 2);
});

test('a loss that is no number ends it with a coded error', async () => {
  const { replica } = remembering((step) => (step === 2 ? Number.NaN : 1));
  const options = { network, dataset, replica, clock, steps: 8, heldOutBatches: 0 };
  await assert.rejects(trainBaseline(options, never), { code: 'diverged', message: /step 3/ });
});
