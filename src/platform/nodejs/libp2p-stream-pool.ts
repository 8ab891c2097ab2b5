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

export function createStreamPool(options: StreamPoolOptions): StreamPool {
  const { clock, protocol } = options;
  const lanes = new Set<Lane>();
  const idle: Lane[] = [];
  const waiting: (() => void)[] = [];
  const closing = new AbortController();
  /** Being opened, or open. */
  let places = 0;
  const wake = () => waiting.shift()?.();

  function leave(): void {
    places -= 1;
    if (places === 0) options.onEmpty();
    wake();
  }

  async function open(): Promise<Outcome<Lane>> {
    const { idleTimeoutMs, timeoutMs } = protocol;
    places += 1;
    const late = AbortSignal.timeout(Math.min(idleTimeoutMs, timeoutMs));
    const opened = await options.openStream(AbortSignal.any([late, closing.signal]));
    if (closing.signal.aborted && opened.ok) opened.value.abort(new Error('closed'));
    if (!opened.ok || closing.signal.aborted) {
      leave();
      if (closing.signal.aborted) return reject('aborted');
      return late.aborted ? reject('stalled', 'no stream could be opened') : (opened as Rejection);
    }
    const lane: Lane = {
      stream: openFrameStream(opened.value, {
        clock,
        idleTimeoutMs,
        frameTimeoutMs: timeoutMs,
        admit: (kind, bytes) => lane.user?.admit(kind, bytes) ?? reject('malformed', 'nothing was asked'),
        onFrame: (frame) => lane.user?.onFrame(frame),
        onProgress: () => lane.user?.onProgress(),
        onEnd: (reason) => lost(lane, reason),
      }),
      user: null,
      cancelIdle: () => {},
    };
    lanes.add(lane);
    return accept(lane);
  }

  function lost(lane: Lane, reason: Rejection): void {
    lane.cancelIdle();
    lanes.delete(lane);
    const index = idle.indexOf(lane);
    if (index >= 0) idle.splice(index, 1);
    if (reason.code === 'malformed' || reason.code === 'too-large') options.penalize(reason.code);
    leave();
    lane.user?.onEnd(reason);
  }

  return {
    async take(signal) {
      while (!signal.aborted && !closing.signal.aborted) {
        // The one used last: its window is widest, and the others may come to their end.
        const lane = idle.pop();
        if (lane) {
          lane.cancelIdle();
          return accept(lane);
        }
        if (places < requestsAtOnceMax) return await open();
        await turn(waiting, signal);
      }
      wake();
      return reject('aborted');
    },
    giveBack(lane) {
      lane.user = null;
      if (!lane.stream.isOpen) return;
      if (idle.length >= idleStreamsMax && waiting.length === 0) {
        lane.stream.end(reject('aborted'));
        return;
      }
      lane.cancelIdle = clock.setTimer(idleStreamMs, () => lane.stream.end(reject('aborted')));
      idle.push(lane);
      wake();
    },
    close() {
      closing.abort();
      for (const lane of [...lanes]) lane.stream.end(reject('aborted'));
      while (waiting.length > 0) wake();
    },
  };
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
