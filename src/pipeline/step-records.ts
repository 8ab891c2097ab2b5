/**
 * Evidence of the optimizer steps that a stage has taken, in the order in which it took them, and the rows that it names:
 * for the rounds worked in last, or as long as it takes until they are drawn for an audit. It signs and checks nothing.
 */
import type { SummedMicrobatch } from '../optim/pipeline-stage.ts';
import { type HashHex, sha256Hex } from '../std/hash.ts';
import type { RowStore } from './row-store.ts';
import type { DriverStep, Seal } from './seals.ts';
import type { MicrobatchEvidence, StepEvidence } from './step-evidence.ts';

/** Rows as they travelled. */
export interface Travelled {
  readonly hash: HashHex;
  /** Undefined where nothing is recorded. */
  readonly bytes: Uint8Array | undefined;
}

export function travelled(bytes: Uint8Array, isKept: boolean): Travelled {
  return { hash: sha256Hex(bytes), bytes: isKept ? bytes : undefined };
}

/** A microbatch that a caller sent, and what went back. */
export interface Received {
  readonly rows: Travelled;
  readonly gradient: Travelled;
}

/** A microbatch that was sent on, and the gradient that was used: with the seal of whom it came from. */
export interface Sent {
  readonly rows: Travelled;
  readonly gradient: Travelled;
  readonly answer: Seal;
}

/** A step that a stage takes. */
export interface TakenStep extends DriverStep {
  readonly norm: number;
  readonly normSeal: Seal;
  readonly summed: readonly SummedMicrobatch[];
  /** By index; empty on the first stage. */
  readonly received: ReadonlyMap<number, Received>;
  /** By index; empty with the head. */
  readonly sent: ReadonlyMap<number, Sent>;
  readonly receipt: Seal | null;
  readonly rest: StepEvidence['rest'];
}

export interface StepRecords {
  /** From now on steps are of this round; `anew`: from its start, whatever was recorded of it before. */
  begin(round: number, anew: boolean): void;
  add(step: TakenStep): void;
  /** Whether the Driver's step was taken. */
  has(step: DriverStep): boolean;
  /** Undefined for a round that is not known (any more), or of which not all rows are kept. */
  stepsOf(round: number): Promise<readonly StepEvidence[] | undefined>;
  rows(hash: HashHex): Promise<Uint8Array | undefined>;
  /** Forgets the rounds before this one: nobody will ask for them. */
  release(before: number): void;
}

/** Whether one of their proofs is drawn may not be known yet: with short rounds it takes several. */
const roundsMax = 8;

export function createStepRecords(rows: RowStore): StepRecords {
  const rounds = new Map<number, StepEvidence[]>();
  const forget = (round: number) => {
    rounds.delete(round);
    rows.drop(round);
  };
  return {
    begin: (round, anew) => {
      const steps = rounds.get(round) ?? [];
      if (anew && steps.length > 0) forget(round);
      // The newest comes last.
      rounds.delete(round);
      rounds.set(round, anew ? [] : steps);
      while (rounds.size > roundsMax) forget(rounds.keys().next().value!);
    },
    add: (step) => {
      const { round } = step;
      const { evidence, bytes } = evidenceOf(step);
      const steps = rounds.get(round);
      if (!steps) return;
      steps.push(evidence);
      for (const [hash, kept] of bytes) rows.put(round, hash, kept);
    },
    has: ({ driver, round, step }) =>
      rounds.get(round)?.some((one) => one.driver === driver && one.step === step) ?? false,
    stepsOf: async (round) => {
      const steps = rounds.get(round);
      return steps && (await rows.isComplete(round)) ? [...steps] : undefined;
    },
    rows: (hash) => rows.get(hash),
    release: (before) => {
      for (const round of [...rounds.keys()]) if (round < before) forget(round);
    },
  };
}

function evidenceOf({ summed, received, sent, ...step }: TakenStep) {
  const bytes = new Map<HashHex, Uint8Array>();
  const keep = (one: Travelled | undefined): HashHex | null => {
    if (one?.bytes) bytes.set(one.hash, one.bytes);
    return one?.hash ?? null;
  };
  const microbatches = summed.map(({ id, madeAt, summedAt }): MicrobatchEvidence => {
    const index = Number(id);
    const before = received.get(index);
    const after = sent.get(index);
    return {
      index,
      madeAt,
      summedAt,
      entry: keep(before?.rows),
      target: keep(after?.gradient),
      sentRows: keep(after?.rows),
      sentGradient: keep(before?.gradient),
      answer: after?.answer ?? null,
    };
  });
  const { driver, round, step: number, norm, normSeal, receipt, rest } = step;
  const evidence: StepEvidence = {
    driver,
    round,
    step: number,
    norm,
    normSeal,
    microbatches,
    receipt,
    rest,
  };
  return { evidence, bytes };
}
