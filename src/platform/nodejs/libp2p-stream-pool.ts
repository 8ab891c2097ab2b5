/**
 * The streams to one peer for one protocol: kept open and used again, one call at a time on each, as many as may be
 * open and the rest wait. A stream that a call has spoilt is reset by that call and never comes back here. It does not
 * know what a call is, only that one has a stream or not.
 */
import type { Stream } from '@libp2p/interface';
import type { Admission, Frame, FrameKind } from '../../net/frame.ts';
import { idleStreamMs, idleStreamsMax, requestsAtOnceMax } from '../../net/limits.ts';
import type { Protocol } from '../../net/protocol.ts';
import type { Clock } from '../../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../../std/outcome.ts';
import { type FrameStream, openFrameStream } from './libp2p-stream.ts';

export interface StreamPoolOptions {
  readonly clock: Clock;
  readonly protocol: Protocol;
  readonly openStream: (signal: AbortSignal) => Promise<Outcome<Stream>>;
  /** The peer broke the rules. */
  readonly penalize: (code: string) => void;
  /** No stream is open any more. */
  readonly onEmpty: () => void;
}

/** Who has a stream, and hears what comes on it. */
export interface StreamUser {
  readonly admit: (kind: FrameKind, bodyBytes: number) => Admission;
  readonly onFrame: (frame: Frame) => void;
  readonly onProgress: () => void;
  readonly onEnd: (reason: Rejection) => void;
}

/** One stream and who uses it; null while it is idle. */
export interface Lane {
  readonly stream: FrameStream;
  user: StreamUser | null;
  cancelIdle: () => void;
}

export interface StreamPool {
  /** An idle stream, or a new one, or the first that is free. `unreachable`, `unknown-protocol`, `stalled`, `aborted`. */
  take(signal: AbortSignal): Promise<Outcome<Lane>>;
  /** The call has ended well: the stream is ready for another. */
  giveBack(lane: Lane): void;
  /** Resets all. */
  close(): void;
}

interface Pool {
  readonly options: StreamPoolOptions;
  /** The one used last comes last. */
  readonly idle: Lane[];
  readonly lanes: Set<Lane>;
  readonly waiting: (() => void)[];
  readonly closing: AbortController;
  /** Streams that are being opened, or open. */
  places: number;
}

export function createStreamPool(options: StreamPoolOptions): StreamPool {
  const pool: Pool = {
    options,
    idle: [],
    lanes: new Set(),
    waiting: [],
    closing: new AbortController(),
    places: 0,
  };
  return {
    take: (signal) => take(pool, signal),
    giveBack: (lane) => giveBack(pool, lane),
    close() {
      pool.closing.abort();
      for (const lane of [...pool.lanes]) lane.stream.end(reject('aborted'));
      while (pool.waiting.length > 0) wake(pool);
    },
  };
}

async function take(pool: Pool, signal: AbortSignal): Promise<Outcome<Lane>> {
  while (!signal.aborted && !pool.closing.signal.aborted) {
    // The one used last: its window is widest, and the others may come to their end.
    const lane = pool.idle.pop();
    if (lane) {
      lane.cancelIdle();
      return accept(lane);
    }
    if (pool.places < requestsAtOnceMax) return await open(pool);
    await turn(pool.waiting, signal);
  }
  wake(pool);
  return reject('aborted');
}

function giveBack(pool: Pool, lane: Lane): void {
  const { idle, waiting, options } = pool;
  lane.user = null;
  if (!lane.stream.isOpen) return;
  if (idle.length >= idleStreamsMax && waiting.length === 0) {
    lane.stream.end(reject('aborted'));
    return;
  }
  lane.cancelIdle = options.clock.setTimer(idleStreamMs, () => lane.stream.end(reject('aborted')));
  idle.push(lane);
  wake(pool);
}

async function open(pool: Pool): Promise<Outcome<Lane>> {
  const { openStream, protocol } = pool.options;
  const closing = pool.closing.signal;
  pool.places += 1;
  const late = AbortSignal.timeout(Math.min(protocol.idleTimeoutMs, protocol.timeoutMs));
  const opened = await openStream(AbortSignal.any([late, closing]));
  if (closing.aborted && opened.ok) opened.value.abort(new Error('closed'));
  if (!opened.ok || closing.aborted) {
    leave(pool);
    if (closing.aborted) return reject('aborted');
    return late.aborted ? reject('stalled', 'no stream could be opened') : (opened as Rejection);
  }
  const lane = laneOf(pool, opened.value);
  pool.lanes.add(lane);
  return accept(lane);
}

function laneOf(pool: Pool, stream: Stream): Lane {
  const { clock, protocol } = pool.options;
  const lane: Lane = {
    stream: openFrameStream(stream, {
      clock,
      idleTimeoutMs: protocol.idleTimeoutMs,
      frameTimeoutMs: protocol.timeoutMs,
      admit: (kind, bytes) => lane.user?.admit(kind, bytes) ?? reject('malformed', 'nothing was asked'),
      onFrame: (frame) => lane.user?.onFrame(frame),
      onProgress: () => lane.user?.onProgress(),
      onEnd: (reason) => lost(pool, lane, reason),
    }),
    user: null,
    cancelIdle: () => {},
  };
  return lane;
}

function lost(pool: Pool, lane: Lane, reason: Rejection): void {
  lane.cancelIdle();
  pool.lanes.delete(lane);
  const index = pool.idle.indexOf(lane);
  if (index >= 0) pool.idle.splice(index, 1);
  if (reason.code === 'malformed' || reason.code === 'too-large') pool.options.penalize(reason.code);
  leave(pool);
  lane.user?.onEnd(reason);
}

function leave(pool: Pool): void {
  pool.places -= 1;
  if (pool.places === 0) pool.options.onEmpty();
  wake(pool);
}

function wake({ waiting }: Pool): void {
  waiting.shift()?.();
}

/** Waits to be woken, or for the signal. */
function turn(waiting: (() => void)[], signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const woken = () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    };
    const onAbort = () => {
      const index = waiting.indexOf(woken);
      if (index >= 0) waiting.splice(index, 1);
      resolve();
    };
    signal.addEventListener('abort', onAbort, { once: true });
    waiting.push(woken);
  });
}
