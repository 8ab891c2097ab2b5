/**
 * The answering side of request-response over libp2p: limits first, then the handler, then the answer, one request at
 * a time on each stream. It does not know what is asked, only how much and how often.
 */
import type { Stream } from '@libp2p/interface';
import { type ByteBudget, createByteBudget } from '../../net/byte-budget.ts';
import { type Admission, encodeRejection, type Frame, type FrameKind } from '../../net/frame.ts';
import {
  progressFramesMax,
  requestBytesHeldMax,
  requestBytesHeldTotalMax,
  requestsAtOnceMax,
  requestsInFlightMax,
} from '../../net/limits.ts';
import type { Protocol } from '../../net/protocol.ts';
import type { RateLimiter } from '../../net/rate-limit.ts';
import type { NodeId, RequestHandler } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { type Outcome, type Rejection, reject } from '../../std/outcome.ts';
import { type FrameStream, openFrameStream } from './libp2p-stream.ts';

export interface RequestServerOptions {
  readonly clock: Clock;
  readonly rates: RateLimiter;
  readonly penalize: (peer: NodeId, code: string) => void;
  /** A handler threw: a bug of ours, or something it did not expect. */
  readonly onError: (error: unknown) => void;
}

export interface RequestServer {
  /** Serves one stream that a peer has opened; the result ends it. */
  serve(stream: Stream, peer: NodeId, protocol: Protocol, handler: RequestHandler): () => void;
}

/** Streams that one peer may have open for one protocol: some more than it uses, as resets take a moment. */
export const inboundStreamsMax = requestsAtOnceMax + 4;

/** A request from its header until its answer has left, or until its handler has let go of it. */
interface Call {
  readonly abort: AbortController;
  /** Gives back what is held for it. */
  readonly release: () => void;
  readonly beganAtMs: number;
}

/** One incoming stream and the request being answered on it. */
interface Session {
  readonly peer: NodeId;
  readonly protocol: Protocol;
  readonly handler: RequestHandler;
  call: Call | null;
  /** The handler has the request. */
  isRunning: boolean;
  /** A rejection is leaving: who asks again before it has come does not read. */
  isRefusing: boolean;
  stream: FrameStream | null;
}

interface Serving {
  readonly options: RequestServerOptions;
  readonly held: ByteBudget;
  /** By peer and protocol, as are the requests being answered. */
  readonly streams: Counts;
  readonly requests: Counts;
}

export function createRequestServer(options: RequestServerOptions): RequestServer {
  const serving: Serving = {
    options,
    held: createByteBudget(requestBytesHeldMax, requestBytesHeldTotalMax),
    streams: createCounts(),
    requests: createCounts(),
  };
  return {
    serve(stream, peer, protocol, handler) {
      const session: Session = {
        peer,
        protocol,
        handler,
        call: null,
        isRunning: false,
        isRefusing: false,
        stream: null,
      };
      return serve(serving, stream, session);
    },
  };
}

function serve(serving: Serving, stream: Stream, session: Session): () => void {
  const { options, streams } = serving;
  const { peer, protocol } = session;
  const key = keyOf(session);
  if (streams.of(key) >= inboundStreamsMax) {
    stream.abort(new Error('too many streams'));
    return () => {};
  }
  const leave = streams.enter(key);
  session.stream = openFrameStream(stream, {
    clock: options.clock,
    idleTimeoutMs: protocol.idleTimeoutMs,
    frameTimeoutMs: protocol.timeoutMs,
    admit: (kind, bodyBytes) => admit(serving, session, kind, bodyBytes),
    onFrame: (frame) => void answer(session, frame, options),
    onProgress: () => {},
    onEnd(reason) {
      leave();
      if (reason.code !== 'unreachable' && reason.code !== 'aborted') options.penalize(peer, reason.code);
      session.call?.abort.abort();
      // A handler that runs keeps its place until it ends, or a peer could ask and reset without bound.
      if (!session.isRunning) session.call?.release();
    },
  });
  return () => session.stream?.end(reject('aborted'));
}

function keyOf({ peer, protocol }: Session): string {
  return `${peer} ${protocol.id}`;
}

/** A request is held to its limits before its body is kept. */
function admit(serving: Serving, session: Session, kind: FrameKind, bodyBytes: number): Admission {
  const { held, requests, options } = serving;
  if (kind !== 'request' || session.call || session.isRefusing)
    return reject('malformed', `an unexpected ${kind}`);
  const bytesMax = session.protocol.requestBytesMax;
  if (bodyBytes > bytesMax) return reject('too-large', `${bodyBytes} bytes, at most ${bytesMax}`);
  const refusal = refusalOf(serving, session);
  const giveBack = refusal ? null : held.take(session.peer, bodyBytes);
  if (!giveBack) {
    void refuse(session, refusal ?? reject('busy', 'too many bytes at once'));
    return 'skip';
  }
  const leave = requests.enter(keyOf(session));
  let isHeld = true;
  const release = () => {
    if (isHeld) {
      giveBack();
      leave();
    }
    isHeld = false;
  };
  session.call = { abort: new AbortController(), release, beganAtMs: options.clock.nowMs() };
  return 'take';
}

/** Null where the peer has asked neither too often nor for too much at once. */
function refusalOf({ options, requests }: Serving, session: Session): Rejection | null {
  const key = keyOf(session);
  if (!options.rates.take(key, session.protocol.requestsPerMinuteMax)) {
    options.penalize(session.peer, 'refused');
    return reject('refused', 'too many requests');
  }
  return requests.of(key) < requestsInFlightMax ? null : reject('busy', 'too many requests at once');
}

/** The rest of the request is read and forgotten. */
async function refuse(session: Session, rejection: Rejection): Promise<void> {
  session.isRefusing = true;
  await session.stream?.send('rejection', encodeRejection(rejection));
  session.isRefusing = false;
}

async function answer(session: Session, frame: Frame, options: RequestServerOptions): Promise<void> {
  const { call, stream, protocol } = session;
  if (!call || !stream) return;
  session.isRunning = true;
  const outcome = await runHandler(session, call, frame.body, options);
  session.isRunning = false;
  // The place is kept until the answer has left our buffers: a peer that does not read gets no more work done.
  if (outcome.ok && outcome.value.length <= protocol.responseBytesMax) {
    await stream.send('response', outcome.value);
  } else {
    const rejection = outcome.ok ? reject('too-large', 'the response') : outcome;
    await stream.send('rejection', encodeRejection(rejection));
  }
  call.release();
  session.call = null;
}

async function runHandler(
  session: Session,
  call: Call,
  body: Uint8Array,
  options: RequestServerOptions,
): Promise<Outcome<Uint8Array>> {
  const { protocol, peer, stream } = session;
  let frames = 0;
  const progress = (frame: Uint8Array) => {
    const isWanted = session.call === call && session.isRunning && !call.abort.signal.aborted;
    if (!isWanted || frame.length > (protocol.frameBytesMax ?? -1)) return;
    if (frames >= progressFramesMax(options.clock.nowMs() - call.beganAtMs)) return;
    if (stream?.trySend('progress', frame)) frames += 1;
  };
  try {
    return await session.handler(peer, body, call.abort.signal, progress);
  } catch (error) {
    options.onError(error);
    return reject('failed');
  }
}

interface Counts {
  of(key: string): number;
  /** One more; the result is to be called once. */
  enter(key: string): () => void;
}

function createCounts(): Counts {
  const counts = new Map<string, number>();
  const of = (key: string) => counts.get(key) ?? 0;
  return {
    of,
    enter(key) {
      counts.set(key, of(key) + 1);
      return () => {
        if (of(key) > 1) counts.set(key, of(key) - 1);
        else counts.delete(key);
      };
    },
  };
}
