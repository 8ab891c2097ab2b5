import assert from 'node:assert/strict';
import { test } from 'node:test';
import { presets } from '../model/config.ts';
import { toHex } from '../std/bytes.ts';
import type { NetworkManifest } from './network.ts';
import { planHash, replicaSettings } from './plan.ts';

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
