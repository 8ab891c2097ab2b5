/**
 * What a stage of several says that it made in an interval: the list of its steps, the evidence of each, and the rows, all
 * by their hashes from the proof on; with the tokens and labels of the Drivers' batches. Who gives the bytes it does not
 * know, and it makes no step.
 */
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import { learningRate } from '../optim/schedule.ts';
import { type RowCodec, rowBytes } from '../pipeline/row-codec.ts';
import {
  checkStepEvidence,
  decodeStepEvidence,
  rowsOf,
  type StepEvidence,
  stepEvidenceBytesMax,
} from '../pipeline/step-evidence.ts';
import { decodeWorkList, type WorkStep, workListBytesMax } from '../pipeline/work-list.ts';
import { must } from '../std/assert.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { TrainingClaim } from './claim.ts';
import type { StageMicrobatch, StageStep } from './stage-step.ts';
import type { StepRules } from './steps.ts';

/** What a network of several stages fixes beside the steps. */
export interface PipelineRules {
  /** 32 bytes: in what neighbours sign. */
  readonly networkId: Uint8Array;
  readonly stages: number;
  readonly codec: RowCodec;
  /** Elements of one microbatch's rows. */
  readonly rowElements: number;
  /** Largest norm of a step's mean gradient. */
  readonly clip: number;
}

/** Bytes of this SHA-256, from whoever has them. */
export type FetchBytes = (hash: HashHex, bytesMax: number) => Promise<Uint8Array | undefined>;

export interface WorkOptions {
  readonly claim: TrainingClaim;
  readonly rules: StepRules & { readonly pipeline: PipelineRules | null };
  readonly dataset: Dataset;
  readonly fetchBytes: FetchBytes;
}

const rowsInFlight = 4;

/**
 * Own steps [from, to) of the claim. `withheld` for what nobody gives; `wrong-work` and `unsigned-work` for what convicts
 * the prover, whoever gave it. Rejects with the dataset's own errors.
 */
export async function stageStepsOf(
  options: WorkOptions,
  from: number,
  to: number,
): Promise<Outcome<StageStep[]>> {
  const { claim, fetchBytes } = options;
  const bytes = await fetchBytes(must(claim.work, 'a stage’s list'), workListBytesMax);
  if (!bytes) return reject('withheld', 'the list of steps');
  const list = decodeWorkList(bytes);
  if (!list.ok) return reject('wrong-work', `the list of steps: ${list.code}`);
  const checked = checkWorkList(list.value, claim, options.rules);
  if (!checked.ok) return checked;
  const steps: StageStep[] = [];
  for (let at = from; at < to; at++) {
    const step = await stageStep(options, list.value, at, from);
    if (!step.ok) return step;
    steps.push(step.value);
  }
  return accept(steps);
}

/** Each of the claim's steps, of a Driver's count, with as many microbatches as it has; together those claimed. */
function checkWorkList(
  list: readonly WorkStep[],
  { nodeId, stage, firstStep, endStep, batches }: TrainingClaim,
  { innerSteps, microbatches }: StepRules,
): Outcome<void> {
  if (list.length !== endStep - firstStep)
    return reject('wrong-work', `${list.length} steps in the list of ${endStep - firstStep}`);
  for (const [i, one] of list.entries()) {
    const isStep = one.step < innerSteps && one.microbatches >= 1 && one.microbatches <= microbatches;
    if (!isStep) return reject('wrong-work', `step ${i}: number ${one.step}, of ${one.microbatches}`);
    if (stage === 0 && one.driver !== nodeId) return reject('wrong-work', `step ${i} is another Driver’s`);
  }
  const total = list.reduce((sum, one) => sum + one.microbatches, 0);
  return total === batches ? accept(undefined) : reject('wrong-work', `${total} batches, not ${batches}`);
}

async function stageStep(
  { claim, rules, dataset, fetchBytes }: WorkOptions,
  list: readonly WorkStep[],
  at: number,
  from: number,
): Promise<Outcome<StageStep>> {
  const listed = must(list[at], 'a step of the list');
  const bytes = await fetchBytes(listed.evidence, stepEvidenceBytesMax);
  if (!bytes) return reject('withheld', `evidence of step ${at}`);
  const decoded = decodeStepEvidence(bytes);
  if (!decoded.ok) return reject('wrong-work', `evidence of step ${at}: ${decoded.code}`);
  const evidence = decoded.value;
  const pipeline = must(rules.pipeline, 'a network of several stages');
  const place = { nodeId: claim.nodeId, stage: claim.stage, stages: pipeline.stages };
  const signed = checkStepEvidence(pipeline.networkId, place, evidence);
  if (!signed.ok) {
    const code = signed.code === 'bad-signature' ? 'unsigned-work' : 'wrong-work';
    return reject(code, `step ${at}: ${signed.code} ${signed.detail}`);
  }
  const placed = checkPlaces(evidence, claim, list, at, from, rules.microbatches);
  if (!placed.ok) return placed;
  const rows = await fetchRows(evidence, pipeline, fetchBytes);
  if (!rows.ok) return rows;
  const { driver, round, step, norm, rest } = evidence;
  const microbatches: StageMicrobatch[] = [];
  for (const one of evidence.microbatches) {
    const { index, madeAt, summedAt } = one;
    const needsBatch = one.entry === null || one.target === null;
    const batch = needsBatch
      ? await batchOf({ ...rules, dataset, nodeId: driver, round, step, index })
      : undefined;
    const of = (hash: HashHex | null) => (hash === null ? null : must(rows.value.get(hash), 'fetched'));
    microbatches.push({
      entry: of(one.entry) ?? must(batch, 'its batch').tokens,
      target: of(one.target) ?? must(batch, 'its batch').labels,
      sentRows: of(one.sentRows),
      sentGradient: of(one.sentGradient),
      madeAt,
      summedAt,
    });
  }
  return accept({
    microbatches,
    learningRate: learningRate(rules, round * rules.innerSteps + step),
    norm,
    rest: claim.stage === 0 && rest ? rest.sums.reduce((sum, square) => sum + square, 0) : null,
  });
}

/** The evidence is that of the step listed, and its microbatches were made when they could have been. */
function checkPlaces(
  { driver, round, step, microbatches }: StepEvidence,
  claim: TrainingClaim,
  list: readonly WorkStep[],
  at: number,
  from: number,
  microbatchesMax: number,
): Outcome<void> {
  const listed = must(list[at], 'a step of the list');
  const isListed = driver === listed.driver && step === listed.step && round === claim.round;
  if (!isListed || microbatches.length !== listed.microbatches)
    return reject('wrong-work', `step ${at} is not the one listed`);
  for (const { index, madeAt, summedAt } of microbatches) {
    if (index >= microbatchesMax) return reject('wrong-work', `step ${at}: microbatch ${index}`);
    if (madeAt > summedAt || summedAt > at || summedAt < from)
      return reject('wrong-work', `step ${at}: made after ${madeAt} steps, summed after ${summedAt}`);
    // A Driver makes one step after the other: only others' steps can have come between.
    if (list.slice(madeAt, at).some((one) => one.driver === driver))
      return reject('wrong-work', `step ${at}: made before its Driver’s step before`);
  }
  return accept(undefined);
}

async function fetchRows(
  evidence: StepEvidence,
  { codec, rowElements }: PipelineRules,
  fetchBytes: FetchBytes,
): Promise<Outcome<ReadonlyMap<HashHex, Uint8Array>>> {
  const rows = new Map<HashHex, Uint8Array>();
  const wanted = [...rowsOf(evidence)];
  let missing: HashHex | undefined;
  const worker = async () => {
    for (let hash = wanted.pop(); hash !== undefined && missing === undefined; hash = wanted.pop()) {
      const bytes = await fetchBytes(hash, rowBytes(codec, rowElements));
      if (bytes) rows.set(hash, bytes);
      else missing = hash;
    }
  };
  await Promise.all(Array.from({ length: rowsInFlight }, worker));
  return missing === undefined ? accept(rows) : reject('withheld', `rows ${missing.slice(0, 16)}`);
}
