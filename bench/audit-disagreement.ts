/**
 * How far honest engines lie apart in one audited interval: a prover trains on the native engine with one thread or two,
 * and every interval is re-executed on the wasm engine, and on the native one with the other number of threads. The largest
 * disagreement makes the tolerance (docs/audit.md). All intervals go through the audit itself: what is not `valid` is a
 * false verdict.
 * Run: node bench/audit-disagreement.ts [--model small|tiny] [--intervals 1000] [--nodes 2] [--compression int8] [--json]
 */
import { parseArgs } from 'node:util';
import { auditInterval } from '../src/audit/audit-interval.ts';
import { recordedStates, type TrainingClaim } from '../src/audit/claim.ts';
import { createEvidenceShelf, fetchEvidence, replicaSource } from '../src/audit/evidence.ts';
import { createReExecutor, type ReExecutor } from '../src/audit/re-execute.ts';
import { type Disagreement, largest, toleranceFor, toleranceMax } from '../src/audit/tolerance.ts';
import type { CodecName } from '../src/diloco/compression/codec.ts';
import { createLocalReplica, type ReplicaSettings } from '../src/diloco/local-replica.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { type ModelConfig, parameterCount, presets } from '../src/model/config.ts';
import type { Transport } from '../src/net/transport.ts';
import { learningRate } from '../src/optim/schedule.ts';
import { defaultOuter, defaultTraining, forRounds } from '../src/peer/policy.ts';
import { startAuditProcess } from '../src/platform/nodejs/audit-host.ts';
import { loadDataset } from '../src/platform/nodejs/dataset-files.ts';
import { createNativeEngine } from '../src/platform/nodejs/onnx-native.ts';
import { installNodeSha256 } from '../src/platform/nodejs/sha256.ts';
import { shippedDatasetFolder } from '../src/platform/nodejs/shipped-dataset.ts';
import { toHex, utf8 } from '../src/std/bytes.ts';
import { sha256Hex } from '../src/std/hash.ts';
import { table } from './support/run-neuroshard.ts';

const { values } = parseArgs({
  options: {
    model: { type: 'string', default: 'small' },
    intervals: { type: 'string', default: '1000' },
    nodes: { type: 'string', default: '2' },
    'first-node': { type: 'string', default: '0' },
    'wasm-only': { type: 'boolean', default: false },
    'interval-steps': { type: 'string', default: '5' },
    'inner-steps': { type: 'string', default: '20' },
    compression: { type: 'string', default: 'int8' },
    json: { type: 'boolean', default: false },
  },
});
installNodeSha256();

/** 0.16M parameters, nearly all of them in the tables, as in small models. */
const smallModel: ModelConfig = {
  ...presets.tiny,
  layers: 2,
  width: 32,
  headWidth: 8,
  ffn: 96,
  context: 32,
};
const config = values.model === 'tiny' ? presets.tiny : smallModel;
const innerSteps = Number(values['inner-steps']);
const intervalSteps = Number(values['interval-steps']);
const training = {
  ...forRounds(defaultTraining(config), innerSteps, true),
  ...(values.model !== 'tiny' && { batch: 4 }),
};
const settings: ReplicaSettings = {
  config,
  seed: new Uint8Array(32).fill(7),
  plan: new Uint8Array(32).fill(9),
  inner: training,
  batch: training.batch,
  sequence: training.sequence,
  outer: defaultOuter(values.compression as CodecName, 'default', innerSteps),
  recording: { intervalSteps },
};
const dataset = await loadDataset(await shippedDatasetFolder(config.vocabulary, ''));

interface Line {
  readonly prover: string;
  readonly auditor: string;
  readonly round: number;
  readonly interval: number;
  readonly code: string;
  readonly disagreement: Disagreement;
}

const lines: Line[] = [];
const wasm = await startAuditProcess([settings], { priority: 'normal' });
const idleCpuMs = await wasm.service.cpuMs();

/** Trains rounds alone on `threads` until so many intervals are made and audited. */
async function prove(threads: number, intervals: number, nodeId: string): Promise<void> {
  const replica = await createLocalReplica({ ...settings, engine: createNativeEngine({ threads }) });
  const others = threads === 1 ? 2 : 1;
  const native = await createReExecutor({ ...settings, engine: createNativeEngine({ threads: others }) });
  const executors: readonly (readonly [string, ReExecutor])[] = [
    ['wasm', wasm.service],
    ...(values['wasm-only'] ? [] : [[engineName(others), native] as const]),
  ];
  const { flatLength } = await replica.info();
  const rules = { ...training, intervalSteps, flatLength, tolerance: toleranceMax, pipeline: null };
  const request = {
    transport: { request: async () => ({ ok: false }), penalize: () => {} } as unknown as Transport,
    shelf: createEvidenceShelf({ bytesMax: 0 }),
    local: [replicaSource(replica)],
    peers: [],
    plan: settings.plan,
    flatLength,
    signal: new AbortController().signal,
  };
  let previous: TrainingClaim['previous'] = null;
  for (let round = 0, made = 0; made < intervals; round++) {
    for (let step = 0; step < innerSteps; step++) {
      const batches = await Promise.all(
        Array.from({ length: training.microbatches }, (_, index) =>
          batchOf({ ...training, dataset, nodeId, round, step, index }),
        ),
      );
      await replica.trainStep(batches, learningRate(training, round * innerSteps + step));
    }
    const { blob, blobHash } = await replica.contribute();
    const record = (await replica.record(round))!;
    const { before, states } = recordedStates(record, 0, innerSteps)!;
    const batches = innerSteps * training.microbatches;
    const claim: TrainingClaim = {
      nodeId,
      round,
      base: record.base,
      firstStep: 0,
      endStep: innerSteps,
      batches,
      tokens: batches * training.batch * training.sequence,
      states: [before, ...states].map(toHex),
      contribution: blobHash,
      stage: 0,
      work: null,
      previous,
    };
    const closed = await replica.closeRound({
      round,
      ownNodeId: nodeId,
      contributions: [{ nodeId, batches, blob }],
    });
    if (!closed.ok) throw new Error(closed.detail);
    previous = { round, state: claim.states.at(-1)!, base: claim.base, listed: true };
    for (let interval = 0; interval < states.length && made < intervals; interval++, made++) {
      for (const [auditor, executor] of executors) {
        const found = await auditInterval({
          ...{ claim, interval, rules, dataset, executor },
          fetch: (wanted) => fetchEvidence(request, wanted),
          fetchBytes: async () => undefined,
        });
        const prover = `native, ${threads} thread${threads > 1 ? 's' : ''}`;
        const { code, disagreement } = found;
        if (disagreement) lines.push({ prover, auditor, round, interval, code, disagreement });
        if (code !== 'valid')
          console.error(`${prover} by ${auditor}: round ${round}, ${code} ${found.detail}`);
      }
    }
  }
  await native.close();
  await replica.close();
  if (!values.json) console.error(`${nodeId.slice(0, 8)}, ${threads} thread(s): ${intervals} intervals`);
}

function engineName(threads: number): string {
  return `native, ${threads} thread${threads > 1 ? 's' : ''}`;
}

// Honest engines lie furthest apart in the first rounds of a node, so many nodes say more than long runs.
const nodes = Number(values.nodes);
const firstNode = Number(values['first-node']);
for (let node = firstNode; node < firstNode + nodes; node++)
  await prove(1 + (node % 2), Math.ceil(Number(values.intervals) / nodes), sha256Hex(utf8(`node ${node}`)));
const auditedByWasm = lines.filter(({ auditor }) => auditor === 'wasm').length;
const wasmCpuMs = ((await wasm.service.cpuMs()) - idleCpuMs) / auditedByWasm;
await wasm.stop();

const quantile = (sorted: readonly number[], q: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!;
const measures = ['update', 'moments', 'direction', 'untrimmed'] as const;
const pairs = [...new Set(lines.map((line) => `${line.prover} · ${line.auditor}`))];
const rows = pairs.flatMap((pair) => {
  const own = lines.filter((line) => `${line.prover} · ${line.auditor}` === pair);
  return measures.map((measure) => {
    const sorted = own.map((line) => line.disagreement[measure]).sort((a, b) => a - b);
    const numbers = [0.5, 0.99, 1].map((q) => quantile(sorted, q));
    const refused = own.filter((line) => line.code !== 'valid').length;
    return { pair, measure, intervals: own.length, numbers, refused };
  });
});
const worst = Math.max(...lines.map(({ disagreement }) => largest(disagreement)));
const furthest = lines
  .toSorted((a, b) => largest(b.disagreement) - largest(a.disagreement))
  .slice(0, 5)
  .map(({ round, interval, disagreement }) => ({ round, interval, ...disagreement }));
const result = {
  model: values.model,
  parameters: parameterCount(config),
  tokensPerInterval: intervalSteps * training.batch * training.sequence,
  rows,
  wasmCpuMs,
  worst,
  furthest,
  tolerance: toleranceFor(worst),
};
if (values.json) console.log(JSON.stringify(result, null, 2));
else {
  const cells = rows.map(({ pair, measure, intervals, numbers, refused }) => [
    pair,
    measure,
    String(intervals),
    ...numbers.map((number) => number.toExponential(1)),
    String(refused),
  ]);
  console.log(table(['prover · auditor', 'of', 'intervals', 'p50', 'p99', 'max', 'false'], cells));
  console.log(
    `${result.parameters} parameters, ${result.tokensPerInterval} tokens an interval, ${wasmCpuMs.toFixed(0)} ms of the wasm process for each`,
  );
  for (const one of furthest) console.log(`furthest: ${JSON.stringify(one)}`);
  console.log(`tolerance: 10 × ${worst.toExponential(1)}, at most ${toleranceMax}: ${result.tolerance}`);
}
