/**
 * How far honest engines lie apart in one audited interval of a stage: a model cut in several is trained on the native
 * engine, and every interval of every stage is made again on the wasm engine from the rows that
 * reached it. What is not `valid` is a false verdict.
 * Run: node bench/audit-disagreement-stages.ts [--model small|tiny] [--stages 2] [--rounds 5] [--nodes 1]
 * [--activations bf16] [--json]
 */
import { parseArgs } from 'node:util';
import type { ClaimedTensors, Finding, ReExecution, ReExecutorSettings } from '../src/audit/re-execute.ts';
import type { StageMicrobatch, StageStep } from '../src/audit/stage-step.ts';
import { toleranceMax } from '../src/audit/tolerance.ts';
import { createLocalReplica } from '../src/diloco/local-replica.ts';
import { decodeStateIndex, leavesPerTensor } from '../src/diloco/local-state.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { type ModelConfig, presets } from '../src/model/config.ts';
import type { StageEntry } from '../src/optim/pipeline-stage.ts';
import { learningRate } from '../src/optim/schedule.ts';
import { gradientScaleOf } from '../src/optim/stage-trainer.ts';
import { defaultOuter, defaultTraining, forRounds } from '../src/peer/policy.ts';
import { decodeRows, encodeRows, type RowCodec } from '../src/pipeline/row-codec.ts';
import { startAuditProcess } from '../src/platform/nodejs/audit-host.ts';
import { loadDataset } from '../src/platform/nodejs/dataset-files.ts';
import { createNativeEngine } from '../src/platform/nodejs/onnx-native.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { shippedDatasetFolder } from '../src/platform/nodejs/shipped-dataset.ts';
import { must } from '../src/std/assert.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256Hex } from '../src/std/hash.ts';
import type { Outcome } from '../src/std/outcome.ts';
import { table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'small' },
    stages: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '5' },
    nodes: { type: 'string', default: '1' },
    activations: { type: 'string', default: 'bf16' },
    json: { type: 'boolean', default: false },
  },
});
installNodeSha256();

const codec = values.activations as RowCodec;
const intervalSteps = 5;
const innerSteps = 20;
const microbatches = 2;
const stages = Number(values.stages);
const smallModel: ModelConfig = {
  ...presets.tiny,
  layers: stages,
  width: 32,
  headWidth: 8,
  ffn: 96,
  context: 32,
};
const config = values.model === 'tiny' ? presets.tiny : smallModel;
const training = {
  ...forRounds(defaultTraining(config), innerSteps, true),
  ...(values.model !== 'tiny' && { batch: 4 }),
  microbatches,
};
const settings = Array.from(
  { length: stages },
  (_, stageIndex): ReExecutorSettings => ({
    config,
    activations: codec,
    stages,
    stageIndex,
    seed: new Uint8Array(32).fill(7),
    plan: new Uint8Array(32).fill(9),
    inner: training,
    batch: training.batch,
    sequence: training.sequence,
    outer: defaultOuter('int8', 'default', innerSteps),
    recording: { intervalSteps },
  }),
);
const dataset = await loadDataset(await shippedDatasetFolder(config.vocabulary, ''));
const elements = training.batch * training.sequence * config.width;

function accepted<T>(outcome: Outcome<T>): T {
  if (!outcome.ok) throw new Error(`${outcome.code}: ${outcome.detail}`);
  return outcome.value;
}

const travel = (rows: Float32Array) => encodeRows(rows, codec);
const arrived = (bytes: Uint8Array) => accepted(decodeRows(bytes, codec, elements));

/** dL/dx as the stage made it; the last one's entry has not been there before. */
async function backward(
  replicas: readonly StageReplica[],
  stage: number,
  call: Parameters<StageReplica['backward']>[0],
  entry: StageEntry,
): Promise<Float32Array | null> {
  const made = { ...call, ...(stage === stages - 1 && { entry }) };
  return accepted(await must(replicas[stage], 'a stage').backward(made)).inputGradient;
}

/** One step through all stages; what each stage's step was made of. */
async function takeStep(
  replicas: readonly StageReplica[],
  nodeId: string,
  round: number,
  step: number,
): Promise<StageStep[]> {
  const made = replicas.map((): StageMicrobatch[] => []);
  const path = 'path';
  for (let index = 0; index < microbatches; index++) {
    const name = { path, id: String(index) };
    const { tokens, labels } = await batchOf({ ...training, dataset, nodeId, round, step, index });
    const sent: Uint8Array[] = [];
    let entry: Int32Array | Float32Array = tokens;
    for (const replica of replicas.slice(0, -1)) {
      sent.push(travel(accepted(await replica.forward({ ...name, entry }))));
      entry = arrived(sent.at(-1)!);
    }
    let target: Int32Array | Uint8Array = labels;
    for (let stage = stages - 1; stage >= 0; stage--) {
      const gradient = target instanceof Int32Array ? target : arrived(target);
      const inputGradient = await backward(replicas, stage, { ...name, target: gradient }, entry);
      const sentGradient = inputGradient && travel(inputGradient);
      const came = { entry: sent[stage - 1] ?? tokens, target };
      const went = { sentRows: sent[stage] ?? null, sentGradient };
      made[stage]!.push({ ...came, ...went, madeAt: step, summedAt: step });
      if (sentGradient) target = sentGradient;
    }
  }
  const ids = Array.from({ length: microbatches }, (_, index) => String(index));
  const squares: number[][] = [];
  for (const replica of replicas) squares.push([...accepted(await replica.prepareStep({ path, ids }))]);
  const sum = (numbers: readonly number[]) => numbers.reduce((total, square) => total + square, 0);
  const norm = Math.sqrt(sum(squares.flat()));
  const rate = learningRate(training, round * innerSteps + step);
  const gradientScale = gradientScaleOf(norm, microbatches, training.clip);
  for (const replica of replicas)
    accepted(await replica.applyStep({ path, learningRate: rate, gradientScale }));
  return made.map((own, stage) => ({
    microbatches: own,
    learningRate: rate,
    norm,
    rest: stage === 0 ? sum(squares.slice(1).flat()) : null,
  }));
}

/** Both ends of an interval, as evidence would give them. */
async function requestOf(
  replica: StageReplica,
  stage: number,
  round: number,
  interval: number,
  steps: readonly StageStep[],
): Promise<ReExecution> {
  const record = must(await replica.record(round), 'a record');
  const perTensor = leavesPerTensor((await replica.info()).flatLength);
  const state = async (hash: string): Promise<ClaimedTensors> => {
    const tensor = (which: number) =>
      Promise.all(
        Array.from({ length: perTensor }, async (_, i) =>
          must(await replica.evidenceLeaf(hash, which * perTensor + i), 'a kept leaf'),
        ),
      );
    return { weights: await tensor(0), firstMoments: await tensor(1), secondMoments: await tensor(2) };
  };
  const before = must(record.boundaries[interval], 'a boundary');
  const after = must(record.boundaries[interval + 1], 'a boundary');
  const index = accepted(decodeStateIndex(must(await replica.evidenceIndex(before.hash), 'its index')));
  return {
    stage,
    place: before,
    start: await state(before.hash),
    end: await state(after.hash),
    feedbackLeaves: index.leaves.slice(3 * perTensor),
    steps,
    tolerance: toleranceMax,
  };
}

const found: { readonly stage: number; readonly finding: Finding }[] = [];
const wasm = await startAuditProcess(settings, { priority: 'normal' });
const idleCpuMs = await wasm.service.cpuMs();

async function prove(nodeId: string): Promise<void> {
  const replicas = await Promise.all(
    settings.map((one) => createLocalReplica({ ...one, engine: createNativeEngine({ threads: 1 }) })),
  );
  for (let round = 0; round < Number(values.rounds); round++) {
    const steps: StageStep[][] = [];
    for (let step = 0; step < innerSteps; step++) steps.push(await takeStep(replicas, nodeId, round, step));
    for (const [stage, replica] of replicas.entries()) {
      const own = steps.map((step) => must(step[stage], 'its step'));
      for (let interval = 0; interval < innerSteps / intervalSteps; interval++) {
        const within = own.slice(interval * intervalSteps, (interval + 1) * intervalSteps);
        const request = await requestOf(replica, stage, round, interval, within);
        const finding = await wasm.service.execute(request);
        found.push({ stage, finding });
        if (finding.code !== 'valid')
          console.error(`stage ${stage + 1}, round ${round}: ${finding.code} ${finding.detail}`);
      }
      const { blob } = await replica.contribute();
      const contributions = [{ nodeId, batches: innerSteps, blob }];
      accepted(await replica.closeRound({ round, ownNodeId: nodeId, contributions }));
    }
  }
  for (const replica of replicas) await replica.close();
  if (!values.json) console.error(`${nodeId.slice(0, 8)}: ${values.rounds} rounds`);
}

for (let node = 0; node < Number(values.nodes); node++) await prove(sha256Hex(utf8(`node ${node}`)));
const wasmCpuMs = ((await wasm.service.cpuMs()) - idleCpuMs) / found.length;
await wasm.stop();

const measures = {
  update: ({ disagreement }: Finding) => disagreement.update,
  moments: ({ disagreement }: Finding) => disagreement.moments,
  direction: ({ disagreement }: Finding) => disagreement.direction,
  rows: ({ rows }: Finding) => rows,
  norm: ({ norm }: Finding) => norm,
};
const lines = settings.flatMap((_, stage) => {
  const own = found.filter((one) => one.stage === stage).map(({ finding }) => finding);
  return Object.entries(measures).map(([measure, of]) => {
    const sorted = own.map(of).sort((a, b) => a - b);
    const numbers = [0.5, 0.99, 1].map(
      (q) => sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!,
    );
    return { stage, measure, intervals: own.length, numbers };
  });
});
if (values.json) console.log(JSON.stringify({ model: values.model, stages, wasmCpuMs, lines }, null, 2));
else {
  console.log(
    table(
      ['stage', 'of', 'intervals', 'p50', 'p99', 'max'],
      lines.map(({ stage, measure, intervals, numbers }) => [
        String(stage + 1),
        measure,
        String(intervals),
        ...numbers.map((number) => number.toExponential(1)),
      ]),
    ),
  );
  console.log(`${wasmCpuMs.toFixed(0)} ms of the wasm process for each interval`);
}
