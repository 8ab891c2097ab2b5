/**
 * A small model cut into three stages, trained through all of them by hand: rows as they travel, what neighbours sign, and
 * what each stage keeps of its steps; and claims of a round as its proofs would make them. Stages may cheat: what the honest
 * nodes around them sign is what they got.
 */
import assert from 'node:assert/strict';
import { type AuditRules, auditInterval } from '../src/audit/audit-interval.ts';
import { recordedStates, type TrainingClaim } from '../src/audit/claim.ts';
import {
  createEvidenceShelf,
  type EvidenceShelf,
  fetchEvidence,
  replicaSource,
  type WantedState,
} from '../src/audit/evidence.ts';
import { createBytesFetch } from '../src/audit/evidence-bytes.ts';
import type { StageWork } from '../src/audit/provide.ts';
import { createReExecutor, type ReExecutor } from '../src/audit/re-execute.ts';
import type { ReplicaSettings } from '../src/diloco/local-replica.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import { keyPairFrom } from '../src/identity/keys.ts';
import type { Transport } from '../src/net/transport.ts';
import { learningRate } from '../src/optim/schedule.ts';
import { gradientScaleOf } from '../src/optim/stage-trainer.ts';
import { decodeRows, encodeRows } from '../src/pipeline/row-codec.ts';
import { signAnswer, signNorm, signReceipt, signSums } from '../src/pipeline/seals.ts';
import {
  encodeStepEvidence,
  type MicrobatchEvidence,
  rowsOf,
  type StepEvidence,
} from '../src/pipeline/step-evidence.ts';
import { encodeWorkList, workHash, workOf } from '../src/pipeline/work-list.ts';
import { toHex, utf8 } from '../src/std/bytes.ts';
import { type HashHex, sha256, sha256Hex } from '../src/std/hash.ts';
import { createInterpreter } from '../src/tensor/interpreter.ts';
import { auditDataset, auditRules, auditSettings } from './audit-world.ts';
import { accepted } from './stage-parity.ts';
import { tinyReplica } from './tiny-replica.ts';

export const stages = 3;
const codec = 'bf16';
const config = { ...auditSettings.config, layers: stages };
export const stageSettings: ReplicaSettings = { ...auditSettings, config, stages };
const networkId = new Uint8Array(32).fill(7);
const rowElements = auditRules.batch * auditRules.sequence * config.width;
const { clip } = stageSettings.inner;

export const stageRules: Omit<AuditRules, 'flatLength'> = {
  ...auditRules,
  microbatches: 2,
  pipeline: { networkId, stages, codec, rowElements, clip },
};

export const keyOf = (name: string | number) => keyPairFrom(sha256(utf8(`stage world ${name}`)));
export const keys = Array.from({ length: stages }, (_, stage) => keyOf(stage));

/** One node in the world: a stage's replica, and what it keeps. */
export interface StageProver {
  readonly stage: number;
  readonly replica: StageReplica;
  readonly steps: StepEvidence[];
}

/** What the cheater makes of what an honest node of its stage does. */
export interface StageCheat {
  /** The rows that it sends on, and the gradient that it sends back. */
  readonly rows?: (rows: Float32Array, stage: number) => Float32Array;
  readonly gradient?: (gradient: Float32Array, stage: number) => Float32Array;
  /** The norm that its Driver signs. */
  readonly norm?: (norm: number) => number;
}

export interface StageWorld {
  readonly provers: readonly StageProver[];
  /** Every row array that travelled. */
  readonly rows: ReadonlyMap<HashHex, Uint8Array>;
  /** Two microbatches of this Driver's step through all stages, and the step. */
  takeStep(step: number, driver?: string): Promise<void>;
  /** Two Drivers on the later stages: the microbatches of the second one's step were made before the first one's step. */
  takeInterleaved(step: number, other: string): Promise<void>;
}

export async function stageWorld(
  cheat: StageCheat = {},
  settings: Partial<ReplicaSettings> = {},
  disguise: (honest: StageReplica, stage: number) => StageReplica = (honest) => honest,
): Promise<StageWorld> {
  const replicas = await Promise.all(
    keys.map(async (_, stageIndex) =>
      disguise(await tinyReplica({ ...stageSettings, ...settings, stageIndex }), stageIndex),
    ),
  );
  const provers = replicas.map((replica, stage): StageProver => ({ stage, replica, steps: [] }));
  const rows = new Map<HashHex, Uint8Array>();
  const others = new Map<string, StageReplica>();
  const travel = (numbers: Float32Array) => {
    const bytes = encodeRows(numbers, codec);
    const hash = sha256Hex(bytes);
    rows.set(hash, bytes);
    return { hash, values: () => accepted(decodeRows(bytes, codec, numbers.length)) };
  };

  /** The first stage of a Driver: that of the world, or a replica of its own beside it. */
  const firstOf = async (driver: string) => {
    if (driver === keys[0]!.nodeId) return replicas[0]!;
    const known = others.get(driver) ?? (await tinyReplica({ ...stageSettings, stageIndex: 0 }));
    others.set(driver, known);
    return known;
  };

  async function microbatches(step: number, driverKey = keys[0]!) {
    const driver = driverKey.nodeId;
    const first = await firstOf(driver);
    const path = [first, ...replicas.slice(1)];
    const signers = [driverKey, ...keys.slice(1)];
    const kept: MicrobatchEvidence[][] = keys.map(() => []);
    for (let index = 0; index < stageRules.microbatches; index++) {
      const name = { path: driver, id: String(index) };
      const at = { dataset: auditDataset, nodeId: driver, round: 0, step, index };
      const { tokens, labels } = await batchOf({ ...stageRules, ...at });
      let entry: Int32Array | Float32Array = tokens;
      const sent: { readonly hash: HashHex }[] = [];
      for (const [stage, replica] of path.slice(0, -1).entries()) {
        const y: Float32Array = accepted(await replica.forward({ ...name, entry }));
        const travelled = travel(cheat.rows?.(y, stage) ?? y);
        sent.push(travelled);
        entry = travelled.values();
      }
      let target: Int32Array | Float32Array = labels;
      const back: HashHex[] = [];
      for (let stage = stages - 1; stage >= 0; stage--) {
        const isLast = stage === stages - 1;
        const done = accepted(await path[stage]!.backward({ ...name, target, ...(isLast && { entry }) }));
        if (!done.inputGradient) break;
        const travelled = travel(cheat.gradient?.(done.inputGradient, stage) ?? done.inputGradient);
        back[stage] = travelled.hash;
        target = travelled.values();
      }
      for (let stage = 0; stage < stages; stage++) {
        const sentRows = sent[stage]?.hash ?? null;
        const target = back[stage + 1] ?? null;
        const answer = { driver, round: 0, step, stage: stage + 1, caller: signers[stage]!.nodeId, index };
        kept[stage]!.push({
          index,
          entry: sent[stage - 1]?.hash ?? null,
          target,
          sentRows,
          sentGradient: back[stage] ?? null,
          answer:
            sentRows && target
              ? signAnswer(networkId, { ...answer, rows: sentRows, gradient: target }, signers[stage + 1]!)
              : null,
          madeAt: 0,
          summedAt: 0,
        });
      }
    }
    return { step, driverKey, path, signers, kept };
  }

  async function finish(made: Awaited<ReturnType<typeof microbatches>>): Promise<void> {
    const { step, driverKey, path, signers, kept } = made;
    const driver = driverKey.nodeId;
    const ids = kept[0]!.map(({ index }) => index);
    const named = { path: driver, ids: ids.map(String) };
    const squares: number[][] = [];
    for (const replica of path) squares.push([...accepted(await replica.prepareStep(named))]);
    const honest = Math.sqrt(squares.flat().reduce((sum, square) => sum + square, 0));
    const norm = cheat.norm?.(honest) ?? honest;
    const place = { driver, round: 0, step };
    const normSeal = signNorm(networkId, { ...place, microbatches: ids.length, norm }, driverKey);
    for (const [stage, replica] of path.entries()) {
      const callee = signers[stage]!;
      const sums = squares.slice(stage + 1).flat();
      const next = signers[stage + 1];
      const exchanges = kept[stage]!.map(({ index, entry, sentGradient }) => ({
        index,
        rows: entry ?? '',
        gradient: sentGradient ?? '',
      }));
      const receipt = { ...place, stage, callee: callee.nodeId, exchanges };
      const rest = { ...place, stage: stage + 1, caller: callee.nodeId, ids, sums };
      const rate = learningRate(stageRules, step);
      const gradientScale = gradientScaleOf(norm, ids.length, clip);
      const summed = accepted(await replica.applyStep({ path: driver, learningRate: rate, gradientScale }));
      const isWorlds = stage > 0 || driver === keys[0]!.nodeId;
      if (!isWorlds) continue;
      const microbatches = summed.map(({ id, madeAt, summedAt }) => {
        return { ...kept[stage]!.find(({ index }) => String(index) === id)!, madeAt, summedAt };
      });
      provers[stage]!.steps.push({
        ...place,
        norm,
        normSeal,
        microbatches,
        receipt: stage > 0 ? signReceipt(networkId, receipt, signers[stage - 1]!) : null,
        rest: next ? { sums, seal: signSums(networkId, rest, next) } : null,
      });
    }
  }

  return {
    provers,
    rows,
    takeStep: async (step, driver) => finish(await microbatches(step, driver ? keyOf(driver) : keys[0]!)),
    takeInterleaved: async (step, other) => {
      const late = await microbatches(step, keyOf(other));
      await finish(await microbatches(step));
      await finish(late);
    },
  };
}

/** What the prover serves of its round. */
export function workIn(world: StageWorld, { steps }: StageProver): StageWork {
  return { stepsOf: async () => steps, rows: async (hash) => world.rows.get(hash) };
}

/** Of all its steps of round 0. */
export async function claimIn({ stage, replica, steps }: StageProver): Promise<TrainingClaim> {
  const record = await replica.record(0);
  assert.ok(record);
  const recorded = recordedStates(record, 0, steps.length);
  assert.ok(recorded, 'its last step ends an interval');
  const batches = steps.reduce((sum, { microbatches }) => sum + microbatches.length, 0);
  return {
    nodeId: keys[stage]!.nodeId,
    stage,
    round: 0,
    base: record.base,
    firstStep: 0,
    endStep: steps.length,
    batches,
    tokens: batches * stageRules.batch * stageRules.sequence,
    states: [recorded.before, ...recorded.states].map(toHex),
    contribution: null,
    work: workHash(workOf(steps)),
    previous: null,
  };
}

const executors = new Map<number, Promise<ReExecutor>>();

export function stageExecutor(stageIndex: number): Promise<ReExecutor> {
  const engine = createInterpreter();
  const made = executors.get(stageIndex) ?? createReExecutor({ ...stageSettings, stageIndex, engine });
  executors.set(stageIndex, made);
  return made;
}

const unreachable = { request: async () => ({ ok: false }), penalize: () => {} } as unknown as Transport;

/** Audits one interval with what is on the shelf, and nothing else. */
export async function auditShelved(
  claim: TrainingClaim,
  interval: number,
  shelf: EvidenceShelf,
  flatLength: number,
) {
  const { signal } = new AbortController();
  const request = { transport: unreachable, shelf, local: [], peers: [], signal };
  const states = { ...request, plan: stageSettings.plan, flatLength };
  return auditInterval({
    claim,
    interval,
    rules: { ...stageRules, flatLength },
    dataset: auditDataset,
    fetch: (wanted: readonly WantedState[]) => fetchEvidence(states, wanted),
    fetchBytes: createBytesFetch(request),
    executor: await stageExecutor(claim.stage),
  });
}

/** Audits one interval with what the prover has; `given` may change the bytes of a hash. */
export async function auditStage(
  world: StageWorld,
  prover: StageProver,
  claim: TrainingClaim,
  interval: number,
  given: (hash: HashHex, bytes: Uint8Array | undefined) => Uint8Array | undefined = (_hash, bytes) => bytes,
) {
  const { replica, steps, stage } = prover;
  const { flatLength } = await replica.info();
  const list = encodeWorkList(workOf(steps));
  const bytes = new Map([[sha256Hex(list), list], ...steps.map((step) => named(encodeStepEvidence(step)))]);
  for (const hash of steps.flatMap((step) => rowsOf(step))) bytes.set(hash, world.rows.get(hash)!);
  const request = {
    transport: unreachable,
    shelf: createEvidenceShelf({ bytesMax: 1e9 }),
    local: [replicaSource(replica)],
    peers: [],
    plan: stageSettings.plan,
    flatLength,
    signal: new AbortController().signal,
  };
  return auditInterval({
    claim,
    interval,
    rules: { ...stageRules, flatLength },
    dataset: auditDataset,
    fetch: (wanted: readonly WantedState[]) => fetchEvidence(request, wanted),
    fetchBytes: async (hash) => given(hash, bytes.get(hash)),
    executor: await stageExecutor(stage),
  });
}

function named(bytes: Uint8Array): [HashHex, Uint8Array] {
  return [sha256Hex(bytes), bytes];
}
