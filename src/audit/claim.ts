/**
 * A training claim as an audit reads it, and which states an audit of one interval needs. The fields come from the proof
 * and from the ledger; nothing here is fetched or computed.
 */
import type { LocalTensor } from '../diloco/local-state.ts';
import type { HashHex } from '../std/hash.ts';
import type { WantedState } from './evidence.ts';

/** A round's work of one node that holds the whole model. */
export interface TrainingClaim {
  readonly nodeId: string;
  readonly round: number;
  /** State hash of (w_r, v), from the ledger. */
  readonly base: HashHex;
  /** Inner steps made. */
  readonly steps: number;
  readonly batches: number;
  readonly tokens: number;
  /** Local state hashes at step 0, every `intervalSteps` steps, and after the last: ⌈steps ÷ s⌉ + 1. */
  readonly states: readonly HashHex[];
  /** Blob hash of the contribution that this work became; null when it made none. */
  readonly contribution: HashHex | null;
  /** The node's proof before this one; null for its first, and when it began a new chain. */
  readonly previous: PreviousClaim | null;
}

export interface PreviousClaim {
  /** Its last state. */
  readonly state: HashHex;
  /** State hash of (w, v) of its round. */
  readonly base: HashHex;
  /** Whether the decided list of its round names the node's contribution. */
  readonly listed: boolean;
}

/** Intervals of a claim of so many steps. */
export function intervalCount(steps: number, intervalSteps: number): number {
  return Math.ceil(steps / intervalSteps);
}

/** Inner steps [from, to) of an interval, within the round. */
export function intervalRange(
  interval: number,
  steps: number,
  intervalSteps: number,
): readonly [from: number, to: number] {
  return [interval * intervalSteps, Math.min(steps, (interval + 1) * intervalSteps)];
}

const trained: readonly LocalTensor[] = ['weights', 'firstMoments', 'secondMoments'];

/** What the audit of one interval reads, in this order; what the prover must therefore keep until the verdict. */
export interface WantedStates {
  readonly start: WantedState;
  readonly end: WantedState;
  /** First interval: the agreed state the round began from, and where the proof before ended. */
  readonly base?: WantedState;
  readonly previous?: WantedState;
  readonly previousBase?: WantedState;
  /** Last interval of a round with a contribution: error feedback at the start, and w_r. */
  readonly feedback?: WantedState;
  readonly contributionBase?: WantedState;
}

export function wantedStates(claim: TrainingClaim, interval: number): WantedStates {
  const { states, previous } = claim;
  const isLast = interval === states.length - 2;
  const wanted = (hash: HashHex, tensors: readonly LocalTensor[]): WantedState => ({ hash, tensors });
  return {
    start: wanted(states[interval]!, trained),
    end: wanted(states[interval + 1]!, trained),
    ...(interval === 0 && { base: wanted(claim.base, []) }),
    ...(interval === 0 &&
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
