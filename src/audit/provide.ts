/**
 * The prover's side of an audit: as soon as one of its proofs is drawn it takes the evidence from its replica, which keeps
 * little, into the shelf that serves it until the verdict; what memory had no room for is made again first.
 */
import type { ReplayRequest } from '../diloco/replay.ts';
import type { StageReplica } from '../diloco/replica.ts';
import { gradientScaleOf } from '../optim/stage-trainer.ts';
import { decodeRows } from '../pipeline/row-codec.ts';
import { encodeStepEvidence, rowsOf, type StepEvidence } from '../pipeline/step-evidence.ts';
import { encodeWorkList, workHash, workOf } from '../pipeline/work-list.ts';
import { assert, must } from '../std/assert.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import type { inTurn } from '../std/in-turn.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { AuditOptions } from './audit-interval.ts';
import { intervalRange, wantedStates } from './claim.ts';
import { type EvidenceShelf, replicaSource, shelveEvidence, type WantedState } from './evidence.ts';
import type { StageStep } from './stage-step.ts';
import { type PipelineRules, stageStepsOf } from './stage-work.ts';
import { stepsOf } from './steps.ts';

type Prover = Pick<StageReplica, 'info' | 'record' | 'replay' | 'evidenceIndex' | 'evidenceLeaf'>;

/** What a node that holds one stage of several keeps of its own steps. */
export interface StageWork {
  /** Of each optimizer step of the round, in the order in which it made them; undefined where something is missing. */
  stepsOf(round: number): Promise<readonly StepEvidence[] | undefined>;
  /** Rows as they travelled, by their SHA-256. */
  rows(hash: HashHex): Promise<Uint8Array | undefined>;
}

export interface ProvideOptions extends Pick<AuditOptions, 'claim' | 'interval' | 'rules' | 'dataset'> {
  readonly replica: Prover;
  /** One for each replica: it keeps the states of one interval that it made again, and the next would take them away. */
  readonly turn: ReturnType<typeof inTurn>;
  readonly shelf: EvidenceShelf;
  /** Undefined for a model held whole. */
  readonly work: StageWork | undefined;
}

/** `not-kept` or `replay-mismatch` when the evidence cannot be had any more. */
export function provideEvidence(options: ProvideOptions): Promise<Outcome<void>> {
  return options.turn(() => provide(options));
}

async function provide(options: ProvideOptions): Promise<Outcome<void>> {
  const { replica, shelf, claim, interval } = options;
  const { flatLength } = await replica.info();
  const states = Object.values(wantedStates(claim, interval)) as WantedState[];
  const shelved = claim.work === null ? accept(undefined) : await shelveWork(options, claim.work);
  if (!shelved.ok) return shelved;
  // Training goes on meanwhile, and may thin out just what was there.
  for (let left = attempts; ; left--) {
    const missing = await missingStep(options);
    const replayed = missing === undefined ? accept(undefined) : await replayTo(options, missing);
    if (!replayed.ok) return replayed;
    const done = await shelveEvidence(replicaSource(replica), shelf, states, flatLength);
    if (done.ok || left === 1) return done;
  }
}

const attempts = 3;

/** The list that the proof names, and of the interval's steps the evidence and the rows. */
async function shelveWork(
  { work, shelf, claim, interval, rules }: ProvideOptions,
  named: HashHex,
): Promise<Outcome<void>> {
  const made = await work?.stepsOf(claim.round);
  const list = workOf(made ?? []);
  if (!work || !made || workHash(list) !== named) return reject('not-kept', `steps of round ${claim.round}`);
  shelf.putBytes(named, encodeWorkList(list));
  const [from, to] = intervalRange(interval, claim, rules.intervalSteps);
  for (const [i, step] of made.slice(from, to).entries()) {
    shelf.putBytes(list[from + i]!.evidence, encodeStepEvidence(step));
    for (const hash of rowsOf(step)) {
      const bytes = await work.rows(hash);
      if (!bytes) return reject('not-kept', `rows of step ${from + i} of round ${claim.round}`);
      shelf.putBytes(hash, bytes);
    }
  }
  return accept(undefined);
}

/** The last step of the interval whose state is not kept. */
async function missingStep({ replica, claim, interval, rules }: ProvideOptions): Promise<number | undefined> {
  const record = await replica.record(claim.round);
  const [from, to] = intervalRange(interval, claim, rules.intervalSteps);
  return record?.boundaries.findLast(({ step, kept }) => !kept && (step === from || step === to))?.step;
}

/** From the newest kept state before the interval, so that both of its states are made again. */
async function replayTo(options: ProvideOptions, missing: number): Promise<Outcome<void>> {
  const { replica, claim, interval, rules } = options;
  const [start] = intervalRange(interval, claim, rules.intervalSteps);
  const record = await replica.record(claim.round);
  const from = record?.boundaries.findLast(({ step, kept }) => kept && step <= start)?.step;
  if (from === undefined || from === missing) return accept(undefined);
  const steps =
    claim.work === null
      ? accept(await stepsOf(options, from, missing))
      : await replayedSteps(options, from, missing);
  return steps.ok ? replica.replay({ round: claim.round, from, steps: steps.value }) : steps;
}

/** Own steps of a stage, from what it kept of them: `not-kept`. */
async function replayedSteps(
  options: ProvideOptions,
  from: number,
  to: number,
): Promise<Outcome<ReplayRequest['steps']>> {
  const { work, shelf, rules } = options;
  const own = await work?.stepsOf(options.claim.round);
  const encoded = new Map(own?.slice(from, to).map((step) => encodeNamed(step)));
  const fetchBytes = async (hash: HashHex) =>
    shelf.bytesOf(hash) ?? encoded.get(hash) ?? (await work?.rows(hash));
  const steps = await stageStepsOf({ ...options, fetchBytes }, from, to);
  if (!steps.ok) return reject('not-kept', steps.detail);
  const pipeline = must(rules.pipeline, 'a network of several stages');
  return accept(steps.value.map((step) => replayed(step, pipeline)));
}

function encodeNamed(step: StepEvidence): [HashHex, Uint8Array] {
  const encoded = encodeStepEvidence(step);
  return [sha256Hex(encoded), encoded];
}

function replayed(
  { microbatches, learningRate, norm }: StageStep,
  { codec, rowElements, clip }: PipelineRules,
) {
  const content = (from: Int32Array | Uint8Array) => {
    if (from instanceof Int32Array) return from;
    const rows = decodeRows(from, codec, rowElements);
    assert(rows.ok, 'rows that it took itself');
    return rows.value;
  };
  return {
    microbatches: microbatches.map(({ entry, target, summedAt }) => ({
      entry: content(entry),
      target: content(target),
      summedAt,
    })),
    learningRate,
    gradientScale: gradientScaleOf(norm, microbatches.length, clip),
  };
}
