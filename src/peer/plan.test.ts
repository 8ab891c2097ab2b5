import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presets } from '../model/config.ts';
import { cutStages } from '../model/stage-cut.ts';
import { stageFlatLength } from '../optim/segments.ts';
import { stageBills } from '../pipeline/memory-bill.ts';
import { toHex } from '../std/bytes.ts';
import type { NetworkManifest } from './network.ts';
import { planHash, replicaSettings, stageBytes } from './plan.ts';
import { defaultTraining } from './policy.ts';

const networkOf = (stages: number, model = presets.tiny) =>
  ({
    networkId: new Uint8Array(32).fill(1),
    seed: new Uint8Array(32),
    model,
    training: { stages },
  }) as unknown as NetworkManifest;

test('no two stages of a cut have the same plan, nor the same stage in two networks', () => {
  for (const count of [1, 2, 4]) {
    const network = networkOf(count);
    const plans = Array.from({ length: count }, (_, index) => toHex(planHash(network, index)));
    plans.push(toHex(planHash({ ...network, networkId: new Uint8Array(32) })));
    plans.push(toHex(planHash({ ...network, model: presets.small })));
    assert.equal(new Set(plans).size, count + 2);
  }
});

test('a replica is made for its stage of the cut', () => {
  const settings = replicaSettings(networkOf(3), 2);
  assert.deepEqual([settings.stages, settings.stageIndex], [3, 2]);
  assert.deepEqual(settings.plan, planHash(networkOf(3), 2));
  assert.throws(() => replicaSettings(networkOf(3), 3), /no stage 3/);
});

test('what a stage needs counts the copies kept for audits: of a large model those of two rounds, of a small one fewer', () => {
  for (const [model, floor] of [
    [presets.tiny, 0],
    [presets.small, 14],
  ] as const) {
    const training = { ...defaultTraining(model), stages: 1, microbatches: 1 };
    const [cut] = cutStages(model, 1);
    const flat = stageFlatLength(model, cut!);
    const [bill] = stageBills(model, 1, { ...training, paths: 1 });
    const [bytes] = stageBytes({ model, training });
    const copies = (bytes! - bill!) / (4 * flat);
    assert.ok(copies > floor, `${copies}`);
    assert.ok(4 * flat * (copies - 13) <= Math.max(256 * 1024 * 1024, 4 * flat * 14));
  }
});
