/**
 * The prover's side of an audit: as soon as one of its proofs is drawn it takes the evidence from its replica, which keeps
 * little, into the shelf that serves it until the verdict; what memory had no room for is made again first.
 */
import type { StageReplica } from '../diloco/replica.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import type { AuditOptions } from './audit-interval.ts';
import { intervalRange, wantedStates } from './claim.ts';
import { type EvidenceShelf, replicaSource, shelveEvidence, type WantedState } from './evidence.ts';
import { stepsOf } from './steps.ts';

type Prover = Pick<StageReplica, 'info' | 'record' | 'replay' | 'evidenceIndex' | 'evidenceLeaf'>;

export interface ProvideOptions extends Pick<AuditOptions, 'claim' | 'interval' | 'rules' | 'dataset'> {
  readonly replica: Prover;
  readonly shelf: EvidenceShelf;
}

/** `not-kept` or `replay-mismatch` when the evidence cannot be had any more. */
export async function provideEvidence(options: ProvideOptions): Promise<Outcome<void>> {
  const { replica, shelf, claim, interval } = options;
  const { flatLength } = await replica.info();
  const states = Object.values(wantedStates(claim, interval)) as WantedState[];
  const missing = await missingStep(options);
  if (missing !== undefined) {
    const replayed = await replayTo(options, missing);
    if (!replayed.ok) return replayed;
  }
  return shelveEvidence(replicaSource(replica), shelf, states, flatLength);
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
  const steps = await stepsOf(options, from, missing);
  return replica.replay({ round: claim.round, from, steps });
}
