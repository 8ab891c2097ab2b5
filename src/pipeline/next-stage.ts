/**
 * The caller's side of a stage boundary: which replica of the next stage a path uses, and what happens when it hangs.
 * Exactly one replica's answer is used for each microbatch; it computes nothing.
 */
import { evaluateProtocol, type Protocol, stepProtocol, trainProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { type CallPlaces, createCallPlaces } from './call-places.ts';
import type { LinkWatch } from './link-watch.ts';
import {
  type BoundaryShape,
  decodeLoss,
  decodeSums,
  decodeTrainAnswer,
  encodeEvaluateRequest,
  encodeStepRequest,
  encodeTrainRequest,
  type TrainAnswer,
  type TrainRequest,
} from './messages.ts';
import type { NormGuard } from './norm-guard.ts';
import type { Router } from './routing.ts';
import { encodeRows } from './row-codec.ts';
import { rootMeanSquare } from './row-norm.ts';
import { type WatchedRejection, watchedRequest } from './watched-request.ts';

/** A replica was given up for another one. */
export interface Failover {
  readonly stage: number;
  readonly node: NodeId;
  readonly code: string;
  /** When the node given up was last heard of, and when another one first answered to the same request. */
  readonly lastSignMs: number;
  readonly acceptedMs: number;
}

export interface NextStageOptions {
  /** Of the callees. */
  readonly stage: number;
  readonly shape: BoundaryShape;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly candidates: (stage: number) => readonly NodeId[];
  /** Where this node begins unless another is much faster: the callers of a stage spread over its replicas. */
  readonly preferred: (candidates: readonly NodeId[]) => NodeId | undefined;
  readonly router: Router;
  readonly links: LinkWatch;
  /** Of the gradients that come back. */
  readonly guard: NormGuard;
  readonly onFailover: (event: Failover) => void;
  /** No replica of the stage can be had (true), or one can again (false). */
  readonly onStarving: (stage: number, starving: boolean) => void;
  readonly onBytes?: (sent: number, received: number) => void;
}

/** What one path has with the next stage during a step. */
export interface Passage {
  readonly driver: NodeId;
  readonly round: number;
  readonly step: number;
  /** The replica in use; kept from step to step. */
  hop: NodeId | undefined;
  /** Microbatches whose dL/dy was used: what was sent, and who has their gradients. */
  readonly used: Map<number, { readonly message: Uint8Array; holder: NodeId }>;
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
  ): Promise<Outcome<TrainAnswer>>;
  /** Σg² of this stage and those after it, over exactly these microbatches. */
  prepare(passage: Passage, ids: readonly number[], signal: AbortSignal): Promise<Outcome<readonly number[]>>;
  /** The answer of the replica that prepared; its step is lost with it when it dies now. */
  apply(passage: Passage, norm: number, signal: AbortSignal): Promise<Outcome<void>>;
  /** Mean loss of w_r over one batch. */
  evaluate(
    call: { readonly round: number; readonly labels: Int32Array; readonly rows: Float32Array },
    signal: AbortSignal,
  ): Promise<Outcome<number>>;
}

/** The replica is alive, and not for us now: another may be, and it costs this one nothing. */
const temporary = new Set([
  'busy',
  'wrong-round',
  'round-over',
  'refused',
  'wrong-stage',
  'stale-step',
  'unchecked',
]);
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
/** No progress of a callee that goes on sending frames, for this long, counts as hanging. */
const progressMs = 20_000;

interface Caller extends NextStageOptions {
  readonly places: CallPlaces;
}

export function createNextStage(given: NextStageOptions): NextStage {
  const options: Caller = { ...given, places: createCallPlaces() };
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
      const rows = encodeRows(call.rows, shape.codec);
      const message = encodeTrainRequest({ ...call, round, stage, step, rows }, shape);
      const answer = await untilAnswered(options, passage, signal, (node, accepted) =>
        trainAt(options, node, message, signal, () => {
          accepted();
          moved?.();
        }),
      );
      if (!answer.ok) return answer;
      const { node, value } = answer.value;
      passage.used.set(call.index, { message, holder: node });
      return accept(value);
    },
    prepare: async (passage, ids, signal) => {
      const { round, step, driver } = passage;
      const message = encodeStepRequest({ pass: 'prepare', round, stage, step, driver, ids });
      const answer = await untilAnswered(options, passage, signal, async (node, accepted) => {
        const moved = await gather(options, { passage, ids, node, accepted }, signal);
        if (!moved.ok) return moved;
        const sums = await call(options, node, stepProtocol, message, signal, accepted);
        if (sums.ok) return decodeSums(sums.value);
        // It was started again since, and knows nothing of them any more.
        if (forgotten.has(sums.code))
          for (const one of passage.used.values()) if (one.holder === node) one.holder = '';
        return sums;
      });
      return answer.ok ? accept(answer.value.value) : answer;
    },
    apply: async (passage, norm, signal) => {
      const { round, step, driver, hop } = passage;
      if (hop === undefined) return reject('not-prepared');
      const message = encodeStepRequest({ pass: 'apply', round, stage, step, driver, norm });
      const answer = await call(options, hop, stepProtocol, message, signal);
      return answer.ok ? accept(undefined) : answer;
    },
    evaluate: async ({ round, labels, rows }, signal) => {
      const passage: Passage = { driver: '', round, step: 0, hop: undefined, used: new Map() };
      const encoded = encodeRows(rows, shape.codec);
      const message = encodeEvaluateRequest({ round, stage, labels, rows: encoded }, shape);
      const answer = await untilAnswered(options, passage, signal, async (node) => {
        const loss = await call(options, node, evaluateProtocol, message, signal);
        return loss.ok ? decodeLoss(loss.value) : loss;
      });
      return answer.ok ? accept(answer.value.value) : answer;
    },
  };
}

/** The replica that is to have a step's gradients gets those microbatches that others, gone by now, had. */
async function gather(
  options: Caller,
  {
    passage,
    ids,
    node,
    accepted,
  }: {
    readonly passage: Passage;
    readonly ids: readonly number[];
    readonly node: NodeId;
    readonly accepted: () => void;
  },
  signal: AbortSignal,
): Promise<Outcome<void>> {
  const missing = ids.map((id) => passage.used.get(id)).filter((one) => one && one.holder !== node);
  const outcomes = await Promise.all(
    missing.map(async (one) => {
      const again = await trainAt(options, node, one!.message, signal, accepted);
      if (again.ok) one!.holder = node;
      return again;
    }),
  );
  return outcomes.find((outcome) => !outcome.ok) ?? accept(undefined);
}

async function trainAt(
  options: Caller,
  node: NodeId,
  message: Uint8Array,
  signal: AbortSignal,
  moved?: () => void,
): Promise<Outcome<TrainAnswer>> {
  const leave = await options.places.take(node, signal);
  if (!leave) return reject(signal.aborted ? 'aborted' : 'busy', 'no place became free');
  const answer = await call(options, node, trainProtocol, message, signal, moved).finally(leave);
  // Those that wait for a place there need not find out one by one.
  if (!answer.ok && !temporary.has(answer.code)) options.places.dismiss(node);
  if (!answer.ok) return answer;
  const decoded = decodeTrainAnswer(answer.value, options.shape);
  // What an honest replica never answers.
  if (!decoded.ok) options.transport.penalize(node, decoded.code);
  const sound = decoded.ok ? options.guard.check(rootMeanSquare(decoded.value.gradient)) : decoded;
  return sound.ok ? decoded : reject('unsound-answer', sound.code);
}

interface Answered<T> {
  readonly node: NodeId;
  readonly value: T;
}

/** Asks the path's replica, then others, then waits and asks again. */
async function untilAnswered<T>(
  options: NextStageOptions,
  passage: Passage,
  signal: AbortSignal,
  ask: (node: NodeId, accepted: () => void) => Promise<Outcome<T>>,
): Promise<Outcome<Answered<T>>> {
  const { clock, router, stage } = options;
  const tried = new Set<NodeId>();
  let waitMs = backoffMsMin;
  let starving = false;
  let isRefused = false;
  let isStale = false;
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
      // Who has not taken the step may be away for long; the Driver goes on with the next one.
      if (isStale) return reject('stale-step');
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
    isStale ||= answer.code === 'stale-step';
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

/** One call, given up when the callee falls silent. */
async function call(
  options: NextStageOptions,
  node: NodeId,
  protocol: Protocol,
  message: Uint8Array,
  signal: AbortSignal,
  moved = () => {},
): Promise<Outcome<Uint8Array>> {
  const answer = await watchedRequest(options, { node, protocol, message, signal, progressMs, moved });
  if (answer.ok) options.onBytes?.(message.length, answer.value.length);
  return answer;
}

/** When the peer of a failed call was last heard of. */
function lastSignMs(failure: Rejection): number | undefined {
  return (failure as Partial<WatchedRejection>).lastSignMs;
}
