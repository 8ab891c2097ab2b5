/**
 * What a replica keeps so that its work can be audited: the hash of its local state at a round's start, every
 * `intervalSteps` inner steps and at the end, and copies of those states within a budget of memory. Of what was thinned
 * out a replay makes the copies again. It knows no peers, no ledger and no proofs.
 */
import type { Segment } from '../optim/segments.ts';
import { assert, must } from '../std/assert.ts';
import { bytesOf } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import {
  encodeStateIndex,
  type LocalPlace,
  leavesPerTensor,
  localStateHash,
  localTensors,
  segmentLeafHashes,
  tensorLeafRange,
} from './local-state.ts';

export interface RecordingOptions {
  /** s: inner steps between two committed hashes. */
  readonly intervalSteps: number;
  /** Memory for copies; `evidenceBytesDefault`. The ends of this round and of the one before are kept in any case. */
  readonly bytesMax?: number;
}

export const evidenceBytesDefault = 256 * 1024 * 1024;

/** A state that the node commits to. */
export interface Boundary extends LocalPlace {
  readonly hash: HashHex;
  /** Whether its leaves can be had now, without a replay. */
  readonly kept: boolean;
}

export interface RoundRecord {
  readonly round: number;
  /** State hash of (w_r, v) that the round began from. */
  readonly base: HashHex;
  /** The state at step 0, every `intervalSteps` steps, and the newest; in order. */
  readonly boundaries: readonly Boundary[];
}

const copiedTensors = ['weights', 'firstMoments', 'secondMoments'] as const;
type Copies = Readonly<Record<(typeof copiedTensors)[number], Float32Array>>;

interface Entry {
  readonly place: LocalPlace;
  readonly hash: HashHex;
  readonly leaves: readonly Uint8Array[];
  copies: Copies | undefined;
}

interface Round {
  readonly round: number;
  readonly base: HashHex;
  readonly baseLeaves: readonly Uint8Array[];
  readonly feedback: Float32Array;
  readonly feedbackLeaves: readonly Uint8Array[];
  readonly entries: Entry[];
  /** Of every so many boundaries one is copied. */
  stride: number;
}

/** Rounds whose hashes are remembered, with or without copies. */
const roundsMax = 8;
/** Whatever the budget, the ends of this round and of the one before are kept: an audit of it may not be drawn yet. */
const roundsMin = 2;
/** Arrays kept for the next copies: those of one state and of a round's feedback. */
const freeMax = 4;
/** States that a replay made again, beside the budget. */
const replayedMax = 2;

/**
 * The most bytes that copies take at any time, of a replica with `flat` elements whose rounds have so many intervals:
 * what the budget allows or, if that is more, what is kept whatever it says; what a replay made; arrays for the next
 * copies; and the newest state, which is there before older ones go.
 */
export function recordingBytesMax(flat: number, intervals: number, bytesMax = evidenceBytesDefault): number {
  const ofState = copiedTensors.length;
  const everything = roundsMax * (ofState * (intervals + 1) + 1);
  const ends = roundsMin * (2 * ofState + 1);
  const kept = Math.min(everything, Math.max(ends, Math.floor(bytesMax / (4 * flat))));
  return 4 * flat * (kept + ofState * replayedMax + freeMax + ofState);
}

export interface Recorder {
  /** Whether the state the replica stands in may go on as it is: it follows from recorded ones, or nothing is claimed of it. */
  isChained(): boolean;
  /** At a round's start, with weights, moments and error feedback in place. `leaves`: of the agreed state. */
  begin(round: number, optimizerSteps: number, base: HashHex, leaves: readonly Uint8Array[]): void;
  afterStep(step: number, optimizerSteps: number): void;
  /** Whether the state after so many steps of a round is one that is committed to, beside the last. */
  isAtBoundary(step: number): boolean;
  /** Before the work of a round goes over into error feedback: its last state. */
  finish(step: number, optimizerSteps: number): void;
  /** Nobody can follow from here on, because the state comes from the middle of a round, or because a claim got lost. */
  interrupt(): void;
  /** Restored in the middle of a round: the replica goes on as it did before, and nothing is recorded until `interrupt`. */
  suspend(): void;
  record(round: number): RoundRecord | undefined;
  /** The encoded index of a local or agreed state of a round that is remembered. */
  index(hash: HashHex): Uint8Array | undefined;
  /** Leaf of a local state, or of w_r of an agreed one; undefined when it is not kept. */
  leaf(hash: HashHex, index: number): Uint8Array | undefined;
  /** The kept state of that step of the round, to replay from. */
  copiesAt(round: number, step: number): (Copies & LocalPlace) | undefined;
  /** The segments stand where a replay has come to: true, and copied, if this is what was recorded at that step. */
  confirm(place: LocalPlace): boolean;
}

export function createRecorder(
  segments: readonly Segment[],
  flat: number,
  plan: Uint8Array,
  { intervalSteps, bytesMax = evidenceBytesDefault }: RecordingOptions,
): Recorder {
  assert(Number.isSafeInteger(intervalSteps) && intervalSteps > 0, 'an interval has steps');
  let rounds: Round[] = [];
  let current: Round | undefined;
  let chained = false;
  let suspended = false;
  /** Whether the last state of `current` is recorded. */
  let isOver = false;
  /** The newest states that a replay made again, beside the budget: those of one interval. */
  let replayed: Entry[] = [];
  const perTensor = leavesPerTensor(flat);

  const arraysInUse = () => {
    const arrays = new Set<Float32Array>();
    for (const { feedback } of rounds) arrays.add(feedback);
    for (const { copies } of [...rounds.flatMap(({ entries }) => entries), ...replayed])
      for (const copy of Object.values(copies ?? {})) arrays.add(copy);
    return arrays;
  };
  /** Memory that is fresh from the system costs as much to touch as a state costs to hash: arrays are used again. */
  let given = new Set<Float32Array>();
  let free: Float32Array[] = [];
  const reclaim = () => {
    const inUse = arraysInUse();
    free = [...free, ...[...given].filter((array) => !inUse.has(array))].slice(0, freeMax);
    given = inUse;
  };
  const copyOf = (tensor: (typeof localTensors)[number]) => {
    const copy = free.pop() ?? new Float32Array(flat);
    given.add(copy);
    for (const { slabs, offset } of segments) copy.set(slabs[tensor], offset);
    return copy;
  };
  const copyAll = (): Copies => ({
    weights: copyOf('weights'),
    firstMoments: copyOf('firstMoments'),
    secondMoments: copyOf('secondMoments'),
  });
  const hashes = (tensor: (typeof localTensors)[number]) => segmentLeafHashes(segments, tensor, flat);
  const entryOf = (place: LocalPlace, leaves: readonly Uint8Array[], copies: Copies | undefined): Entry => ({
    place,
    leaves,
    copies,
    hash: localStateHash(plan, place, leaves),
  });

  const add = (place: LocalPlace) => {
    const round = must(current, 'a round');
    const leaves = [...copiedTensors.flatMap(hashes), ...round.feedbackLeaves];
    // What was the newest is kept on only if it is its turn.
    const last = must(round.entries.at(-1), 'its start');
    if ((round.entries.length - 1) % round.stride !== 0) last.copies = undefined;
    round.entries.push(entryOf(place, leaves, copyAll()));
    shrink();
    reclaim();
  };

  const bytesKept = () => 4 * flat * (arraysInUse().size - 3 * replayed.length);
  /** Thins out old rounds before new ones; lets go of a whole round only when there is nothing to thin out. */
  const shrink = () => {
    while (bytesKept() > bytesMax) {
      const round = rounds.find(({ entries }) => entries.slice(1, -1).some(({ copies }) => copies));
      if (round) {
        round.stride *= 2;
        for (const [i, entry] of round.entries.slice(0, -1).entries())
          if (i % round.stride !== 0) entry.copies = undefined;
      } else if (rounds.length > roundsMin) rounds.shift();
      else return;
    }
  };
  const ofHash = (hash: HashHex): Entry | undefined => {
    const again = replayed.find((entry) => entry.hash === hash);
    return again ?? rounds.flatMap(({ entries }) => entries).find((entry) => entry.hash === hash);
  };
  const cut = (tensor: Float32Array | undefined, index: number) =>
    tensor && bytesOf(tensor.slice(...tensorLeafRange(flat, index)));

  return {
    isChained: () => chained || suspended,
    begin: (round, optimizerSteps, base, leaves) => {
      if (suspended) return;
      const before = current?.entries.at(-1);
      const isSame = before !== undefined && before.place.optimizerSteps === optimizerSteps;
      const baseLeaves = leaves.slice();
      const feedbackLeaves = hashes('errorFeedback');
      // Moments go over into the next round as they are: neither hashed nor copied again.
      const moments = isSame
        ? before.leaves.slice(perTensor, 3 * perTensor)
        : [...hashes('firstMoments'), ...hashes('secondMoments')];
      const copies = isSame && before.copies ? { ...before.copies, weights: copyOf('weights') } : copyAll();
      const place = { round, step: 0, optimizerSteps };
      const start = entryOf(place, [...leaves.slice(0, perTensor), ...moments, ...feedbackLeaves], copies);
      const feedback = copyOf('errorFeedback');
      current = { round, base, baseLeaves, feedback, feedbackLeaves, entries: [start], stride: 1 };
      rounds = [...rounds.filter((one) => one.round !== round), current].slice(-roundsMax);
      chained = true;
      isOver = false;
      shrink();
      reclaim();
    },
    isAtBoundary: (step) => step % intervalSteps === 0,
    afterStep: (step, optimizerSteps) => {
      if (current && step % intervalSteps === 0) add({ round: current.round, step, optimizerSteps });
    },
    finish: (step, optimizerSteps) => {
      if (current && current.entries.at(-1)!.place.step !== step)
        add({ round: current.round, step, optimizerSteps });
      isOver = true;
    },
    interrupt: () => {
      // Of what was not recorded to its end nothing can be proved.
      rounds = rounds.filter((round) => round !== current || isOver);
      current = undefined;
      chained = false;
      suspended = false;
    },
    suspend: () => {
      rounds = rounds.filter((round) => round !== current || isOver);
      current = undefined;
      chained = false;
      suspended = true;
    },
    record: (number) => {
      const round = rounds.findLast((one) => one.round === number);
      if (!round) return undefined;
      const boundaries = round.entries.map(({ place, hash, copies }) => ({
        ...place,
        hash,
        kept: copies !== undefined || replayed.some((entry) => entry.hash === hash),
      }));
      return { round: number, base: round.base, boundaries };
    },
    index: (hash) => {
      const entry = ofHash(hash);
      if (entry) return encodeStateIndex({ kind: 'local', place: entry.place, leaves: entry.leaves });
      const round = rounds.find((one) => one.base === hash);
      return round && encodeStateIndex({ kind: 'agreed', round: round.round, leaves: round.baseLeaves });
    },
    leaf: (hash, index) => {
      if (!Number.isInteger(index) || index < 0 || index >= 4 * perTensor) return undefined;
      const entry = ofHash(hash);
      const round = rounds.find((one) => one.base === hash || one.round === entry?.place.round);
      const copies = (entry ?? round?.entries[0])?.copies;
      if (!entry && index >= perTensor) return undefined;
      const tensor = localTensors[Math.floor(index / perTensor)]!;
      return cut(tensor === 'errorFeedback' ? round?.feedback : copies?.[tensor], index % perTensor);
    },
    copiesAt: (number, step) => {
      const round = rounds.find((one) => one.round === number);
      const entry = round?.entries.find(({ place }) => place.step === step);
      const copies = entry?.copies ?? replayed.find(({ hash }) => hash === entry?.hash)?.copies;
      return entry && copies && { ...copies, ...entry.place };
    },
    confirm: (place) => {
      const round = rounds.find((one) => one.round === place.round);
      const recorded = round?.entries.find((entry) => entry.place.step === place.step);
      if (!round || !recorded) return false;
      const leaves = [...copiedTensors.flatMap(hashes), ...round.feedbackLeaves];
      const again = entryOf(place, leaves, copyAll());
      if (again.hash !== recorded.hash) return false;
      replayed = [...replayed.filter((entry) => entry.hash !== again.hash), again].slice(-replayedMax);
      reclaim();
      return true;
    },
  };
}
