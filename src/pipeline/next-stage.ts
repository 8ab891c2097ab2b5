/**
 * The caller's side of a stage boundary: which replica of the next stage a path uses, and what happens when it hangs.
 * Exactly one replica's answer is used for each microbatch; it computes nothing.
 */
import { evaluateProtocol, stepProtocol } from '../net/protocol.ts';
import type { NodeId } from '../net/transport.ts';
import { must } from '../std/assert.ts';
import { sleep } from '../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { createCallPlaces } from './call-places.ts';
import { type AtCallee, type CalleeOptions, callOnce, prepareAt, temporary, trainAt } from './callee.ts';
import {
  decodeLoss,
  encodeEvaluateRequest,
  encodeStepRequest,
  encodeTrainRequest,
  type SealedSums,
  type TrainRequest,
} from './messages.ts';
import { encodeRows } from './row-codec.ts';
import type { DriverStep, Exchange, Seal } from './seals.ts';
import { type Sent, travelled } from './step-records.ts';
import type { WatchedRejection } from './watched-request.ts';

/** A replica was given up for another one. */
export interface Failover {
  readonly stage: number;
  readonly node: NodeId;
  readonly code: string;
  /** When the node given up was last heard of, and when another one first answered to the same request. */
  readonly lastSignMs: number;
  readonly acceptedMs: number;
}

export interface NextStageOptions extends CalleeOptions {
  readonly candidates: (stage: number) => readonly NodeId[];
  /** Where this node begins unless another is much faster: the callers of a stage spread over its replicas. */
  readonly preferred: (candidates: readonly NodeId[]) => NodeId | undefined;
  readonly onFailover: (event: Failover) => void;
  /** No replica of the stage can be had (true), or one can again (false). */
  readonly onStarving: (stage: number, starving: boolean) => void;
}

/** What one path has with the next stage during a step. */
export interface Passage extends DriverStep {
  /** The replica in use; kept from step to step. */
  hop: NodeId | undefined;
  /** Microbatches whose dL/dy was used. */
  readonly used: Map<number, Used>;
}

interface Used extends Sent {
  readonly message: Uint8Array;
  /** Who has its gradients, and the hash of what that one answered: another's answer may have been used. */
  holder: NodeId;
  held: string;
}

export interface TrainResult {
  readonly loss: number;
  /** dL/dy. */
  readonly gradient: Float32Array;
}

/** The norm of a step, with the Driver's seal. */
export interface SealedNorm {
  readonly norm: number;
  readonly seal: Seal;
}

export interface NextStage {
  /** The passage of a new step: on the preferred replica if it is well, else on that of the step before. */
  open(driver: NodeId, round: number, step: number, before?: Passage): Passage;
  /** Retries elsewhere until an answer comes, a refusal is final, or the signal aborts (`aborted`). */
  train(
    passage: Passage,
    call: Pick<TrainRequest, 'index' | 'claim' | 'labels'> & { readonly rows: Float32Array },
    signal: AbortSignal,
    moved?: () => void,
  ): Promise<Outcome<TrainResult>>;
  /** Σg² of this stage and those after it, over exactly these microbatches. `unknown-microbatch` for one that never went on. */
  prepare(passage: Passage, ids: readonly number[], signal: AbortSignal): Promise<Outcome<SealedSums>>;
  /** The answer of the replica that prepared; its step is lost with it when it dies now. */
  apply(passage: Passage, norm: SealedNorm, signal: AbortSignal): Promise<Outcome<void>>;
  /** Mean loss of w_r over one batch. */
  evaluate(
    call: { readonly round: number; readonly labels: Int32Array; readonly rows: Float32Array },
    signal: AbortSignal,
  ): Promise<Outcome<number>>;
}

/** The fault is in what was sent, if a second replica says so too: one alone may lie. */
const final = new Set([
  'wrong-batch',
  'wrong-labels',
  'bad-claim',
  'convicted',
  'bad-label',
  'absurd-norm',
  'not-finite',
]);

const forgotten = new Set(['unknown-path', 'unknown-microbatch']);

const backoffMsMin = 10;
const backoffMsMax = 500;
export function createNextStage(given: NextStageOptions): NextStage {
  const options: AtCallee & NextStageOptions = { ...given, places: createCallPlaces() };
  const { stage, shape } = options;
  return {
    open: (driver, round, step, before) => {
      const last = before?.round === round ? before.hop : undefined;
      // Between two steps nothing is under way: a preferred replica that has come back is used again.
      const hop = placeToBegin(options, options.candidates(stage)) ?? last;
      return { driver, round, step, hop, used: new Map() };
    },
    train: async (passage, call, signal, moved) => {
      const { round, step } = passage;
      const encoded = encodeRows(call.rows, shape.codec);
      const message = encodeTrainRequest({ ...call, round, stage, step, rows: encoded }, shape);
      // The message is kept until the step is taken: its rows are not kept twice.
      const rows = travelled(message.subarray(message.length - encoded.length), options.keepsRows);
      const microbatch = { of: passage, index: call.index, message, rows };
      const answer = await untilAnswered(options, passage, signal, (node, accepted) =>
        trainAt(options, node, microbatch, signal, () => {
          accepted();
          moved?.();
        }),
      );
      if (!answer.ok) return answer;
      const { node, value } = answer.value;
      const { loss, dy, ...sent } = value;
      passage.used.set(call.index, { ...sent, message, holder: node, held: sent.gradient.hash });
      return accept({ loss, gradient: dy });
    },
    prepare: async (passage, ids, signal) => {
      const unknown = ids.find((index) => !passage.used.has(index));
      if (unknown !== undefined) return reject('unknown-microbatch', String(unknown));
      const answer = await untilAnswered(options, passage, signal, async (node, accepted) => {
        const moved = await gather(options, { passage, ids, node, accepted }, signal);
        if (!moved.ok) return moved;
        const sums = await prepareAt(options, node, passage, moved.value, accepted, signal);
        // It was started again since, and knows nothing of them any more.
        if (!sums.ok && forgotten.has(sums.code))
          for (const one of passage.used.values()) if (one.holder === node) one.holder = '';
        return sums;
      });
      return answer.ok ? accept(answer.value.value) : answer;
    },
    apply: async (passage, { norm, seal }, signal) => {
      const { round, step, driver, hop } = passage;
      if (hop === undefined) return reject('not-prepared');
      const message = encodeStepRequest({ pass: 'apply', round, stage, step, driver, norm, seal });
      const answer = await callOnce(options, hop, stepProtocol, message, signal);
      return answer.ok ? accept(undefined) : answer;
    },
    evaluate: async ({ round, labels, rows }, signal) => {
      const passage: Passage = { driver: '', round, step: 0, hop: undefined, used: new Map() };
      const encoded = encodeRows(rows, shape.codec);
      const message = encodeEvaluateRequest({ round, stage, labels, rows: encoded }, shape);
      const ask = async (node: NodeId) => {
        const loss = await callOnce(options, node, evaluateProtocol, message, signal);
        return loss.ok ? decodeLoss(loss.value) : loss;
      };
      // Where all have left the round, none comes back to it.
      const answer = await untilAnswered(options, passage, signal, ask, 'past-round');
      return answer.ok ? accept(answer.value.value) : answer;
    },
  };
}

interface Gathering {
  readonly passage: Passage;
  readonly ids: readonly number[];
  readonly node: NodeId;
  readonly accepted: () => void;
}

/**
 * The replica that is to have a step's gradients gets those microbatches that others, gone by now, had. Gives what went to
 * it and came from it for all of them.
 */
async function gather(
  options: AtCallee,
  { passage, ids, node, accepted }: Gathering,
  signal: AbortSignal,
): Promise<Outcome<readonly Exchange[]>> {
  const gathered = await Promise.all(
    ids.map(async (index): Promise<Outcome<Exchange>> => {
      const one = must(passage.used.get(index), 'a microbatch that went on');
      if (one.holder !== node) {
        const again = await trainAt(options, node, { of: passage, index, ...one }, signal, accepted);
        if (!again.ok) return again;
        one.holder = node;
        one.held = again.value.gradient.hash;
      }
      return accept({ index, rows: one.rows.hash, gradient: one.held });
    }),
  );
  const exchanges: Exchange[] = [];
  for (const one of gathered) {
    if (!one.ok) return one;
    exchanges.push(one.value);
  }
  return accept(exchanges);
}

interface Answered<T> {
  readonly node: NodeId;
  readonly value: T;
}

/** Asks the path's replica, then others, then waits and asks again, unless one of them has answered `endCode`. */
async function untilAnswered<T>(
  options: NextStageOptions,
  passage: Passage,
  signal: AbortSignal,
  ask: (node: NodeId, accepted: () => void) => Promise<Outcome<T>>,
  // Who has not taken the step may be away for long; the Driver goes on with the next one.
  endCode = 'stale-step',
): Promise<Outcome<Answered<T>>> {
  const { clock, router, stage } = options;
  const tried = new Set<NodeId>();
  let waitMs = backoffMsMin;
  let starving = false;
  let isRefused = false;
  let isOver = false;
  let failed: { node: NodeId; code: string; lastSignMs: number } | undefined;
  const accepted = () => {
    if (failed) options.onFailover({ stage, ...failed, acceptedMs: clock.nowMs() });
    failed = undefined;
  };
  while (!signal.aborted) {
    const candidates = options.candidates(stage);
    const sticky = passage.hop ?? placeToBegin(options, candidates);
    const node = router.choose(candidates, { ...(sticky !== undefined && { sticky }), exclude: tried });
    if (node === undefined) {
      if (isOver) return reject(endCode);
      if (!starving && candidates.length === 0) {
        starving = true;
        options.onStarving(stage, true);
      }
      tried.clear();
      await sleep(clock, waitMs, signal).catch(() => {});
      waitMs = Math.min(2 * waitMs, backoffMsMax);
      continue;
    }
    // The replicas of a stage train apart: what is usual at one need not be at another.
    if (passage.hop !== undefined && passage.hop !== node) options.guard.reset();
    const answer = await ask(node, accepted);
    if (answer.ok) {
      accepted();
      if (starving) options.onStarving(stage, false);
      passage.hop = node;
      return accept({ node, value: answer.value });
    }
    if (signal.aborted) break;
    tried.add(node);
    isOver ||= answer.code === endCode;
    if (final.has(answer.code)) {
      if (isRefused || candidates.length === 1) return answer;
      isRefused = true;
      continue;
    }
    if (temporary.has(answer.code)) continue;
    router.penalise(node);
    failed ??= { node, code: answer.code, lastSignMs: lastSignMs(answer) ?? clock.nowMs() };
  }
  return reject('aborted');
}

/** Of the fastest candidate's expected time, at most: then the place that the preference gives is taken. */
const preferenceRatio = 2;

function placeToBegin({ preferred, router }: NextStageOptions, candidates: readonly NodeId[]) {
  const node = preferred(candidates);
  if (node === undefined) return undefined;
  const fastest = Math.min(...candidates.map((one) => router.expectedMs(one)));
  return router.expectedMs(node) <= preferenceRatio * fastest ? node : undefined;
}

/** When the peer of a failed call was last heard of. */
function lastSignMs(failure: Rejection): number | undefined {
  return (failure as Partial<WatchedRejection>).lastSignMs;
}
