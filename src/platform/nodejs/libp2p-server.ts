/**
 * The answering side of request-response over libp2p: limits first, then the handler, then the answer, many exchanges
 * on one stream. It does not know what is asked, only how much and how often.
 */
import type { Stream } from '@libp2p/interface';
import { encodeRejection, type Frame } from '../../net/frame.ts';
import { requestsAtOnceMax, requestsInFlightMax } from '../../net/limits.ts';
import type { Protocol } from '../../net/protocol.ts';
import type { RateLimiter } from '../../net/rate-limit.ts';
import type { NodeId, RequestHandler } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { type Outcome, reject } from '../../std/outcome.ts';
import { type FrameStream, openFrameStream } from './libp2p-stream.ts';

export interface RequestServerOptions {
  readonly clock: Clock;
  readonly rates: RateLimiter;
  readonly penalize: (peer: NodeId, code: string) => void;
  /** A handler threw: a bug of ours, or something it did not expect. */
  readonly onError: (error: unknown) => void;
}

/** One incoming stream and what is being answered on it. */
interface Session {
  readonly peer: NodeId;
  readonly protocol: Protocol;
  readonly handler: RequestHandler;
  readonly running: Map<number, AbortController>;
  readonly waiting: Frame[];
  stream: FrameStream | null;
}

/** Serves one stream that a peer has opened; the result ends it. */
export function serveStream(
  stream: Stream,
  peer: NodeId,
  protocol: Protocol,
  handler: RequestHandler,
  options: RequestServerOptions,
): () => void {
  const session: Session = { peer, protocol, handler, running: new Map(), waiting: [], stream: null };
  session.stream = openFrameStream(stream, {
    clock: options.clock,
    idleTimeoutMs: protocol.idleTimeoutMs,
    frameTimeoutMs: protocol.timeoutMs,
    bodyBytesMax: (kind) => (kind === 'request' ? protocol.requestBytesMax : 0),
    onFrame: (frame) => takeFrame(session, frame, options),
    onProgress: () => {},
    onEnd(reason) {
      if (reason.code !== 'unreachable' && reason.code !== 'aborted') options.penalize(peer, reason.code);
      session.waiting.length = 0;
      for (const controller of session.running.values()) controller.abort();
    },
  });
  return () => session.stream?.end(reject('aborted'));
}

function takeFrame(session: Session, frame: Frame, options: RequestServerOptions): void {
  const { running, waiting, stream } = session;
  if (frame.kind === 'cancel') {
    running.get(frame.exchange)?.abort();
    const index = waiting.findIndex((other) => other.exchange === frame.exchange);
    if (index >= 0) waiting.splice(index, 1);
    return;
  }
  if (frame.kind !== 'request' || running.has(frame.exchange)) {
    stream?.end(reject('malformed', `an unexpected ${frame.kind}`));
    return;
  }
  const tooMany = running.size + waiting.length >= requestsInFlightMax;
  if (
    tooMany ||
    !options.rates.take(`${session.peer} ${session.protocol.id}`, session.protocol.requestsPerMinuteMax)
  ) {
    options.penalize(session.peer, 'refused');
    void stream?.send(frame.exchange, 'rejection', encodeRejection(reject('refused', 'too many requests')));
    return;
  }
  waiting.push(frame);
  startWaiting(session, options);
}

/** Runs what may run; while others wait, nothing more is read. */
function startWaiting(session: Session, options: RequestServerOptions): void {
  const { running, waiting, stream } = session;
  while (running.size < requestsAtOnceMax) {
    const frame = waiting.shift();
    if (!frame) break;
    void answer(session, frame, options);
  }
  // The stream is not yet known when its first bytes are already there.
  if (waiting.length > 0) stream?.pause();
  else stream?.resume();
}

async function answer(session: Session, frame: Frame, options: RequestServerOptions): Promise<void> {
  const { running, protocol } = session;
  const controller = new AbortController();
  running.set(frame.exchange, controller);
  const outcome = await runHandler(session, frame, controller.signal, options);
  // The place is kept until the answer has left our buffers: a peer that does not read gets no more work done.
  if (!controller.signal.aborted && outcome.ok && outcome.value.length <= protocol.responseBytesMax) {
    await session.stream?.send(frame.exchange, 'response', outcome.value);
  } else if (!controller.signal.aborted) {
    const rejection = outcome.ok ? reject('too-large', 'the response') : outcome;
    await session.stream?.send(frame.exchange, 'rejection', encodeRejection(rejection));
  }
  running.delete(frame.exchange);
  startWaiting(session, options);
}

async function runHandler(
  session: Session,
  frame: Frame,
  signal: AbortSignal,
  options: RequestServerOptions,
): Promise<Outcome<Uint8Array>> {
  // Who asked may give up, and a handler may not notice: its place must not be lost.
  const { promise: givenUp, resolve: giveUp } = Promise.withResolvers<Outcome<Uint8Array>>();
  signal.addEventListener('abort', () => giveUp(reject('aborted')), { once: true });
  try {
    return await Promise.race([session.handler(session.peer, frame.body, signal), givenUp]);
  } catch (error) {
    options.onError(error);
    return reject('failed');
  }
}
