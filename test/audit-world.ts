/**
 * One prover that trains rounds of a small model on its own batches, honestly or not, and what an auditor needs to check
 * it: claims as a proof would make them, evidence straight from the replica, and a re-executor.
 */
import assert from 'node:assert/strict';
import { type AuditOptions, type AuditRules, auditInterval } from '../src/audit/audit-interval.ts';
import { recordedStates, type TrainingClaim } from '../src/audit/claim.ts';
import {
  createEvidenceShelf,
  fetchEvidence,
  replicaSource,
  type WantedState,
} from '../src/audit/evidence.ts';
import type { ReExecutor } from '../src/audit/re-execute.ts';
import { createReExecutor } from '../src/audit/re-execute.ts';
import { toleranceMax } from '../src/audit/tolerance.ts';
import type { ReplicaSettings } from '../src/diloco/local-replica.ts';
import type { RoundRecord } from '../src/diloco/recording.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { Dataset } from '../src/genesis/dataset.ts';
import { batchOf } from '../src/genesis/sampler.ts';
import type { Transport } from '../src/net/transport.ts';
import { learningRate } from '../src/optim/schedule.ts';
import type { Batch } from '../src/optim/stage-trainer.ts';
import { toHex } from '../src/std/bytes.ts';
import { createInterpreter } from '../src/tensor/interpreter.ts';
import { countedDataset } from './counted-dataset.ts';
import { tinyReplica, tinySettings } from './tiny-replica.ts';

export const auditDataset = await countedDataset('audited', 40);

const vocabulary = 260;
export const auditSettings: ReplicaSettings = {
  ...tinySettings,
  config: { ...tinySettings.config, vocabulary },
  recording: { intervalSteps: 2 },
};

export const auditRules: Omit<AuditRules, 'flatLength'> = {
  innerSteps: 4,
  batch: 2,
  sequence: 8,
  microbatches: 1,
  intervalSteps: 2,
  peakLearningRate: 1e-2,
  warmupSteps: 2,
  totalSteps: 100,
  floorRatio: 0.1,
  tolerance: toleranceMax,
  pipeline: null,
};

/** What a cheater may do otherwise; everything honest by default. */
export interface Deviation {
  /** Whose batches are trained on. */
  readonly dataOf?: string;
  /** Steps really made; the others only counted. */
  readonly stepsMade?: (step: number) => boolean;
  readonly spoil?: (batch: Batch) => Batch;
}

export interface Prover {
  readonly nodeId: string;
  readonly replica: StageReplica;
  /** Trains one round, contributes, and closes it with its own contribution listed or not. */
  round(options?: { readonly listed?: boolean; readonly steps?: number } & Deviation): Promise<TrainingClaim>;
}

export interface ProverOptions {
  readonly nodeId: string;
  readonly replica: StageReplica;
  readonly rules: Omit<AuditRules, 'flatLength'>;
  readonly dataset: Dataset;
}

export function createProver({ nodeId, replica, rules, dataset }: ProverOptions): Prover {
  let previous: TrainingClaim['previous'] = null;
  return {
    nodeId,
    replica,
    round: async ({ listed = true, steps = rules.innerSteps, ...deviation } = {}) => {
      const { round } = await replica.position();
      for (let step = 0; step < steps; step++) await takeStep(round, step, deviation);
      const { blob, blobHash } = await replica.contribute();
      const record = await replica.record(round);
      assert.ok(record);
      const claim = claimOf(record, { nodeId, steps, contribution: blobHash, previous, rules });
      const contributions = listed ? [{ nodeId, batches: steps, blob }] : [];
      const closed = await replica.closeRound({ round, contributions, ownNodeId: nodeId });
      assert.ok(closed.ok, JSON.stringify(closed));
      previous = { round, state: claim.states.at(-1)!, base: claim.base, listed };
      return claim;
    },
  };

  async function takeStep(round: number, step: number, deviation: Deviation): Promise<void> {
    const { dataOf = nodeId, stepsMade = () => true, spoil = (batch) => batch } = deviation;
    const batches = await Promise.all(
      Array.from({ length: rules.microbatches }, (_, index) =>
        batchOf({ ...rules, dataset, nodeId: dataOf, round, step, index }),
      ),
    );
    // A step at rate 0 leaves the weights as they are.
    const rate = stepsMade(step) ? learningRate(rules, round * rules.innerSteps + step) : 0;
    const content = batches.map(({ tokens, labels }) => spoil({ tokens, labels }));
    await replica.trainStep(content, rate);
  }
}

function claimOf(
  record: RoundRecord,
  made: Pick<TrainingClaim, 'nodeId' | 'contribution' | 'previous'> & {
    readonly steps: number;
    readonly rules: Omit<AuditRules, 'flatLength'>;
  },
): TrainingClaim {
  const { rules, steps, ...rest } = made;
  const batches = steps * rules.microbatches;
  const recorded = recordedStates(record, 0, steps);
  assert.ok(recorded);
  return {
    ...rest,
    stage: 0,
    work: null,
    round: record.round,
    base: record.base,
    firstStep: 0,
    endStep: steps,
    batches,
    tokens: batches * rules.batch * rules.sequence,
    states: [recorded.before, ...recorded.states].map(toHex),
  };
}

export async function interpretedProver(
  nodeId: string,
  settings: Partial<ReplicaSettings> = {},
  rules = auditRules,
): Promise<Prover> {
  const replica = await tinyReplica({ ...auditSettings, ...settings });
  return createProver({ nodeId, replica, rules, dataset: auditDataset });
}

export function interpretedExecutor(settings: Partial<ReplicaSettings> = {}): Promise<ReExecutor> {
  return createReExecutor({ engine: createInterpreter(), ...auditSettings, ...settings });
}

const unreachable = {
  request: async () => ({ ok: false, code: 'unreachable', detail: '' }),
  penalize: () => undefined,
} as unknown as Transport;

/** Audits one interval with evidence straight from the prover's replica. */
export async function auditOne(
  prover: Pick<Prover, 'replica'>,
  claim: TrainingClaim,
  interval: number,
  executor: AuditOptions['executor'],
  rules = auditRules,
  dataset = auditDataset,
) {
  const { flatLength } = await prover.replica.info();
  const request = {
    transport: unreachable,
    shelf: createEvidenceShelf({ bytesMax: 1e9 }),
    local: [replicaSource(prover.replica)],
    peers: [],
    plan: auditSettings.plan,
    flatLength,
    signal: new AbortController().signal,
  };
  const fetch = (wanted: readonly WantedState[]) => fetchEvidence(request, wanted);
  const fetchBytes = async () => undefined;
  return auditInterval({
    claim,
    interval,
    rules: { ...rules, flatLength },
    dataset,
    fetch,
    fetchBytes,
    executor,
  });
}
