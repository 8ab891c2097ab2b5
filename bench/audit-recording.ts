/**
 * What committing to a state costs its prover: CPU time of a training step with and without a recorded state after each,
 * and the interval at which the recording takes 1% of the training. One thread; turns alternate, so that both meet the
 * same machine; medians.
 * Run: node bench/audit-recording.ts [--preset tiny] [--steps 20] [--json]
 */
import { parseArgs } from 'node:util';
import { createLocalReplica, type ReplicaSettings } from '../src/diloco/local-replica.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { presetConfig } from '../src/model/config.ts';
import { defaultOuter, defaultTraining } from '../src/peer/policy.ts';
import { loadDataset } from '../src/platform/nodejs/dataset-files.ts';
import { createNativeEngine } from '../src/platform/nodejs/onnx-native.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { shippedDatasetFolder } from '../src/platform/nodejs/shipped-dataset.ts';

const { values } = parseArgs({
  options: {
    preset: { type: 'string', default: 'tiny' },
    steps: { type: 'string', default: '20' },
    json: { type: 'boolean', default: false },
  },
});
installNodeSha256();
const config = presetConfig(values.preset);
const training = defaultTraining(config);
const settings: ReplicaSettings = {
  config,
  seed: new Uint8Array(32).fill(7),
  plan: new Uint8Array(32).fill(9),
  inner: training,
  batch: training.batch,
  sequence: training.sequence,
  outer: defaultOuter('int8', 'default'),
};
// The tokens do not matter here, only how many there are.
const dataset = await loadDataset(await shippedDatasetFolder(2048, ''));
const make = (recording?: ReplicaSettings['recording']) =>
  createLocalReplica({
    ...settings,
    ...(recording && { recording }),
    engine: createNativeEngine({ threads: 1 }),
  });
const plain = await make();
const recording = await make({ intervalSteps: 1, bytesMax: 0 });

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

const times = { plain: [] as number[], recording: [] as number[] };
for (let step = 0; step < Number(values.steps); step++) {
  const batch = await batchOf({ ...training, dataset, nodeId: 'a'.repeat(64), round: 0, step });
  for (const [name, replica] of Object.entries({ plain, recording })) {
    const began = cpuMs();
    await replica.trainStep([batch], 1e-3);
    times[name as keyof typeof times].push(cpuMs() - began);
  }
}
const median = (numbers: readonly number[]) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1]!;
const stepMs = median(times.plain);
const stateMs = median(times.recording) - stepMs;
const { parameters, flatLength } = await plain.info();
const result = {
  preset: values.preset,
  parameters,
  tokensPerStep: training.batch * training.sequence,
  stepMs,
  stateMs,
  shareAt5: stateMs / (5 * stepMs),
  intervalFor1Percent: Math.ceil(stateMs / (0.01 * stepMs)),
  copyBytes: 3 * 4 * flatLength,
};
if (values.json) console.log(JSON.stringify(result, null, 2));
else console.log(result);
await plain.close();
await recording.close();
