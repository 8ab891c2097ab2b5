/**
 * A replica of one stage as a decode session uses it: this node itself, called directly, or a peer, to which the calls of
 * many sessions go in one message. It opens, runs and closes where it is told; it chooses no replica.
 */
import type { DecodeCall, DecodeResult } from '../model/decode-call.ts';
import type { OpenedSession } from '../model/decode-host.ts';
import { decodeProtocol } from '../net/protocol.ts';
import type { NodeId } from '../net/transport.ts';
import { type Outcome, type Rejection, reject } from '../std/outcome.ts';
import {
  callsMax,
  decodeOpened,
  decodeResults,
  encodeDecodeRequest,
  rowBytesAimed,
  type WireCall,
} from './decode-messages.ts';
import type { DecodeService } from './decode-service.ts';
import { createGather, type Gather } from './gather.ts';
import { paymentRequired, type ServicePayer } from './payment.ts';
import { type WatchedRequestOptions, watchedRequest } from './watched-request.ts';

export interface RunOptions {
  readonly signal?: AbortSignal;
  /** Silence allowed, in times the link's own; asked when a message goes. */
  readonly patience?: () => number;
}

export interface DecodePlace {
  readonly node: NodeId;
  open(session: string, round: number | undefined, options: RunOptions): Promise<Outcome<OpenedSession>>;
  /** One call; its output is empty unless wanted. */
  run(call: WireCall, options: RunOptions): Promise<Outcome<DecodeResult>>;
  /** Calls of one session, in order, up to the first that is refused: the outcome of the last that was made. */
  replay(calls: readonly WireCall[], options: RunOptions): Promise<Outcome<DecodeResult>>;
  /** Best effort: what cannot be reached ends by itself. */
  close(session: string): Promise<void>;
}

/** This node's own stage. */
export function localPlace(node: NodeId, service: DecodeService): DecodePlace {
  const runAll = async (calls: readonly DecodeCall[], signal: AbortSignal | undefined) => {
    try {
      return await service.run(node, calls, signal ? { signal } : {});
    } catch (error) {
      return [reject('failed', error instanceof Error ? error.message : String(error))];
    }
  };
  return {
    node,
    open: async (session, round) => {
      try {
        return await service.open(node, { session, ...(round !== undefined && { round }) });
      } catch (error) {
        return reject('failed', error instanceof Error ? error.message : String(error));
      }
    },
    run: async (call, { signal }) => (await runAll([call], signal))[0]!,
    replay: async (calls, { signal }) => lastOf(await runAll(calls, signal)),
    close: (session) => service.close(node, [session]).catch(() => undefined),
  };
}

function lastOf(outcomes: readonly Outcome<DecodeResult>[]): Outcome<DecodeResult> {
  return outcomes.find((outcome) => !outcome.ok) ?? outcomes.at(-1)!;
}

export interface RemotePlaceOptions extends WatchedRequestOptions {
  readonly node: NodeId;
  readonly stage: number;
  /** Elements of an output for a call of so many elements: logits or rows. */
  readonly outputLength: (entryLength: number) => number;
  /** Elements of an entry for each position. */
  readonly positionLength: number;
  /** Without it nobody is paid. */
  readonly payer?: ServicePayer;
}

interface WaitingRun {
  readonly call: WireCall;
  readonly options: RunOptions;
  readonly settle: (outcome: Outcome<DecodeResult>) => void;
}

const progressMs = 10_000;
const closeMs = 2_000;
const gatherMs = 1;
/** Times in a row that a replica may ask for money before it answers. */
const settlesMax = 8;

/** A peer's stage; used by all sessions of this node that go there. */
export function remotePlace(options: RemotePlaceOptions): DecodePlace {
  const { node, stage, clock, positionLength, payer } = options;
  const answered = ({ entry }: WireCall) => payer?.answered(node, stage, entry.length / positionLength);
  /** Undefined: it was paid, and may be asked again. */
  const settle = async (refused: Outcome<DecodeResult>, signal: AbortSignal | undefined) => {
    if (refused.ok || refused.code !== paymentRequired || !payer) return refused;
    const settled = await payer.settle(node, stage, signal);
    return settled.ok ? undefined : settled;
  };
  const gather: Gather<WaitingRun> = createGather({
    clock,
    windowMs: gatherMs,
    take: takeMessage,
    run: async (batch) => {
      const calls = batch.map(({ call }) => call);
      // All go to the same replica of the same stage.
      const { patience } = batch[0]!.options;
      const outcomes = await send(options, calls, patience ? { patience } : {});
      for (const [i, { settle }] of batch.entries()) settle(outcomes.ok ? outcomes.value[i]! : outcomes);
    },
  });
  return {
    node,
    open: async (session, round, { signal, patience }) => {
      const message = encodeDecodeRequest({
        kind: 'open',
        stage,
        session,
        ...(round !== undefined && { round }),
      });
      const answer = await request(options, message, {
        ...(signal && { signal }),
        ...(patience && { patience }),
      });
      return answer.ok ? decodeOpened(answer.value) : answer;
    },
    run: async (call, runOptions) => {
      for (let settles = 0; ; settles++) {
        const outcome = await runOnce(gather, call, runOptions);
        if (outcome.ok) {
          answered(call);
          return outcome;
        }
        if (settles >= settlesMax) return outcome;
        const refused = await settle(outcome, runOptions.signal);
        if (refused) return refused;
      }
    },
    replay: async (calls, runOptions) => {
      let last: Outcome<DecodeResult> = reject('malformed', 'nothing to compute again');
      for (let start = 0, settles = 0; start < calls.length; ) {
        const message = calls.slice(start, start + messageCalls(calls, start));
        const outcomes = await send(options, message, runOptions);
        const made = outcomes.ok ? countUntilRefused(outcomes.value) : 0;
        for (const call of message.slice(0, made)) answered(call);
        start += made;
        last = outcomes.ok ? lastOf(outcomes.value) : outcomes;
        if (last.ok) continue;
        settles = made > 0 ? 1 : settles + 1;
        const refused = settles > settlesMax ? last : await settle(last, runOptions.signal);
        if (refused) return refused;
      }
      return last;
    },
    close: async (session) => {
      const controller = new AbortController();
      const cancel = clock.setTimer(closeMs, () => controller.abort());
      const message = encodeDecodeRequest({ kind: 'close', stage, sessions: [session] });
      await options.transport.request(node, decodeProtocol, message, controller.signal);
      cancel();
    },
  };
}

/** One call, together with those of other sessions. */
function runOnce(
  gather: Gather<WaitingRun>,
  call: WireCall,
  options: RunOptions,
): Promise<Outcome<DecodeResult>> {
  return new Promise((resolve) => {
    const { signal } = options;
    const onAbort = () => resolve(reject('aborted'));
    if (signal?.aborted) return onAbort();
    signal?.addEventListener('abort', onAbort, { once: true });
    const settle = (outcome: Outcome<DecodeResult>) => {
      signal?.removeEventListener('abort', onAbort);
      resolve(outcome);
    };
    gather.push({ call, options, settle });
  });
}

function countUntilRefused(outcomes: readonly Outcome<DecodeResult>[]): number {
  const refused = outcomes.findIndex(({ ok }) => !ok);
  return refused < 0 ? outcomes.length : refused;
}

/** How many calls from `start` on go into one message: at least one. */
function messageCalls(calls: readonly DecodeCall[], start: number): number {
  let bytes = 0;
  let count = 0;
  while (count < callsMax && start + count < calls.length) {
    bytes += calls[start + count]!.entry.byteLength;
    if (count > 0 && bytes > rowBytesAimed) break;
    count += 1;
  }
  return count;
}

function takeMessage(waiting: WaitingRun[]): WaitingRun[] {
  for (let i = waiting.length - 1; i >= 0; i--) if (waiting[i]!.options.signal?.aborted) waiting.splice(i, 1);
  const calls = waiting.map(({ call }) => call);
  return waiting.splice(0, messageCalls(calls, 0));
}

async function send(
  options: RemotePlaceOptions,
  calls: readonly WireCall[],
  runOptions: RunOptions,
): Promise<Outcome<readonly Outcome<DecodeResult>[]>> {
  const { transport, node, stage, outputLength } = options;
  const message = encodeDecodeRequest({ kind: 'run', stage, calls });
  const answer = await request(options, message, runOptions);
  if (!answer.ok) return answer;
  const lengths = calls.map(({ wanted, entry }) => (wanted ? outputLength(entry.length) : 0));
  const results = decodeResults(answer.value, lengths);
  // What an honest replica never answers.
  if (!results.ok) transport.penalize(node, results.code);
  return results;
}

function request(
  options: RemotePlaceOptions,
  message: Uint8Array,
  { signal, patience }: RunOptions,
): Promise<Outcome<Uint8Array> | Rejection> {
  return watchedRequest(options, {
    node: options.node,
    protocol: decodeProtocol,
    message,
    progressMs,
    ...(signal && { signal }),
    ...(patience && { patience: patience() }),
  });
}
