/**
 * A training claim as an audit reads it, and which states an audit of one interval needs. The fields come from the proof
 * and from the ledger; nothing here is fetched or computed.
 */
import type { LocalTensor } from '../diloco/local-state.ts';
import type { RoundRecord } from '../diloco/recording.ts';
import type { ProofBody } from '../ledger/proof.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import type { WantedState } from './evidence.ts';

/** Steps of one round, of the whole model or of one stage of several. */
export interface TrainingClaim {
  readonly nodeId: string;
  /** From 0. */
  readonly stage: number;
  readonly round: number;
  /** State hash of (w_r, v), from the ledger. */
  readonly base: HashHex;
  /** Inner steps [firstStep, endStep) of the round. */
  readonly firstStep: number;
  readonly endStep: number;
  readonly batches: number;
  readonly tokens: number;
  /** Local state hashes at `firstStep`, after every `intervalSteps` steps, and after the last: intervals + 1. */
  readonly states: readonly HashHex[];
  /** Blob hash of the contribution that the round's work became, when it ends here; null otherwise. */
  readonly contribution: HashHex | null;
  /** SHA-256 of the list of its steps, where it holds one stage of several; null otherwise. */
  readonly work: HashHex | null;
  /** The node's training proof before this one, as the ledger has it; null when this is its first. */
  readonly previous: PreviousClaim | null;
}

export interface PreviousClaim {
  readonly round: number;
  /** Its last state. */
  readonly state: HashHex;
  /** State hash of (w, v) of its round. */
  readonly base: HashHex;
  /** Whether the decided list of its round names the node's contribution; null where the list is not known (any more). */
  readonly listed: boolean | null;
}

/** A proof's claim. What is not in the proof is the ledger's to say. */
export function claimOfProof(nodeId: string, body: ProofBody, previous: PreviousClaim | null): TrainingClaim {
  const { stage, round, firstStep, endStep, batches, tokens, base, before, states } = body;
  const { contribution, work } = body;
  return {
    nodeId,
    stage,
    round,
    base: toHex(base),
    firstStep,
    endStep,
    batches,
    tokens,
    states: [before, ...states].map(toHex),
    contribution: contribution && toHex(contribution),
    work: work && toHex(work),
    previous,
  };
}

/**
 * What a proof of steps [firstStep, endStep) of a recorded round commits to: the state before, and after each interval.
 * Undefined where the steps do not begin and end at recorded states.
 */
export function recordedStates(
  { boundaries }: RoundRecord,
  firstStep: number,
  endStep: number,
): Pick<ProofBody, 'before' | 'states'> | undefined {
  const within = boundaries.filter(({ step }) => step >= firstStep && step <= endStep);
  if (within.length < 2 || within[0]!.step !== firstStep || within.at(-1)!.step !== endStep) return undefined;
  const [before, ...states] = within.map(({ hash }) => fromHex(hash));
  return { before: before!, states };
}

/** Inner steps [from, to) of an interval, within the round. */
export function intervalRange(
  interval: number,
  { firstStep, endStep }: Pick<TrainingClaim, 'firstStep' | 'endStep'>,
  intervalSteps: number,
): readonly [from: number, to: number] {
  const from = firstStep + interval * intervalSteps;
  return [from, Math.min(endStep, from + intervalSteps)];
}

const trained: readonly LocalTensor[] = ['weights', 'firstMoments', 'secondMoments'];

/** What the audit of one interval reads, in this order; what the prover must therefore keep until the verdict. */
export interface WantedStates {
  readonly start: WantedState;
  readonly end: WantedState;
  /** First interval of a round: the agreed state the round began from, and where the proof before ended. */
  readonly base?: WantedState;
  readonly previous?: WantedState;
  readonly previousBase?: WantedState;
  /** Last interval of a round with a contribution: error feedback at the start, and w_r. */
  readonly feedback?: WantedState;
  readonly contributionBase?: WantedState;
}

export function wantedStates(claim: TrainingClaim, interval: number): WantedStates {
  const { states, previous } = claim;
  const beginsRound = interval === 0 && claim.firstStep === 0;
  const isLast = interval === states.length - 2;
  const wanted = (hash: HashHex, tensors: readonly LocalTensor[]): WantedState => ({ hash, tensors });
  return {
    start: wanted(states[interval]!, trained),
    end: wanted(states[interval + 1]!, trained),
    ...(beginsRound && { base: wanted(claim.base, []) }),
    ...(beginsRound &&
      previous && {
        previous: wanted(previous.state, ['weights', 'errorFeedback']),
        previousBase: wanted(previous.base, ['weights']),
      }),
    ...(isLast &&
      claim.contribution !== null && {
        feedback: wanted(states[interval]!, ['errorFeedback']),
        contributionBase: wanted(claim.base, ['weights']),
      }),
  };
}
