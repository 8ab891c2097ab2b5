/**
 * One request stream: reads frames, writes frames in pieces with back-pressure, and watches for silence. It knows
 * neither which side asked nor what the frames mean.
 */
import type { Stream, StreamMessageEvent } from '@libp2p/interface';
import { createFrameReader, type Frame, type FrameKind, frameHeader } from '../../net/frame.ts';
import { pieceBytesMax } from '../../net/limits.ts';
import type { Clock } from '../../std/clock.ts';
import { type Rejection, reject } from '../../std/outcome.ts';

export interface FrameStreamOptions {
  readonly clock: Clock;
  readonly idleTimeoutMs: number;
  /** Longest time that one incoming frame may take. */
  readonly frameTimeoutMs: number;
  readonly bodyBytesMax: (kind: FrameKind) => number;
  readonly onFrame: (frame: Frame) => void;
  /** Any bytes moved in either direction. */
  readonly onProgress: () => void;
  /** Once, whoever ended it: `unreachable` when the stream or connection closed, else what the peer did. */
  readonly onEnd: (reason: Rejection) => void;
}

export interface FrameStream {
  /** Resolves when the bytes have left our buffers; ends the stream as `stalled` when the peer takes nothing. */
  send(exchange: number, kind: FrameKind, body: Uint8Array): Promise<void>;
  /** Stops reading: the peer's window fills and it must wait. */
  pause(): void;
  resume(): void;
  end(reason: Rejection): void;
  readonly isOpen: boolean;
}

export function openFrameStream(stream: Stream, options: FrameStreamOptions): FrameStream {
  const { clock, idleTimeoutMs } = options;
  let open = true;
  let paused = false;
  let writing: Promise<void> = Promise.resolve();
  let cancelIdle = () => {};
  let cancelFrame: (() => void) | null = null;
  const reader = createFrameReader(options.bodyBytesMax, options.onFrame);

  function end(reason: Rejection): void {
    if (!open) return;
    open = false;
    cancelIdle();
    cancelFrame?.();
    stream.removeEventListener('message', onMessage);
    stream.abort(new Error(reason.code));
    options.onEnd(reason);
  }

  /** A frame that has begun must go on and come to its end. */
  function watchFrame(): void {
    cancelIdle();
    if (!open || paused || !reader.isInside()) {
      cancelFrame?.();
      cancelFrame = null;
      return;
    }
    const stalled = () => end(reject('stalled', 'in the middle of a message'));
    cancelIdle = clock.setTimer(idleTimeoutMs, stalled);
    cancelFrame ??= clock.setTimer(options.frameTimeoutMs, stalled);
  }

  function onMessage(event: StreamMessageEvent): void {
    options.onProgress();
    const { data } = event;
    for (const piece of data instanceof Uint8Array ? [data] : data) {
      const failure = open ? reader.push(piece) : null;
      if (failure) end(failure);
    }
    watchFrame();
  }

  async function write(exchange: number, kind: FrameKind, body: Uint8Array): Promise<void> {
    if (!open) return;
    try {
      stream.send(frameHeader(exchange, kind, body.length));
      for (let offset = 0; offset < body.length && open; offset += pieceBytesMax) {
        stream.send(body.subarray(offset, offset + pieceBytesMax));
        if (!(await emptied(stream, clock, idleTimeoutMs, options.onProgress))) {
          end(reject('stalled', 'the peer takes no bytes'));
        }
      }
    } catch {
      end(reject('unreachable', 'the stream is closed'));
    }
  }

  stream.addEventListener('close', () => end(reject('unreachable', 'the stream closed')));
  stream.addEventListener('message', onMessage);
  return {
    get isOpen() {
      return open;
    },
    send(exchange, kind, body) {
      writing = writing.then(() => write(exchange, kind, body));
      return writing;
    },
    pause() {
      if (!open || paused) return;
      paused = true;
      stream.pause();
      watchFrame();
    },
    resume() {
      if (!open || !paused) return;
      paused = false;
      stream.resume();
      watchFrame();
    },
    end,
  };
}

/**
 * Waits until the write buffer is empty; false when nothing moves for the idle time. (libp2p's own `onDrain` resolves
 * at once from its second use on, so it cannot be relied upon.)
 */
function emptied(stream: Stream, clock: Clock, idleMs: number, onProgress: () => void): Promise<boolean> {
  if (stream.writeBufferLength === 0) return Promise.resolve(true);
  return new Promise((resolve) => {
    let cancel = () => {};
    const finish = (outcome: boolean) => {
      cancel();
      stream.removeEventListener('drain', onDrain);
      stream.removeEventListener('idle', onIdle);
      stream.removeEventListener('close', onIdle);
      resolve(outcome);
    };
    const onDrain = () => {
      onProgress();
      cancel();
      cancel = clock.setTimer(idleMs, () => finish(false));
    };
    const onIdle = () => finish(true);
    cancel = clock.setTimer(idleMs, () => finish(false));
    stream.addEventListener('drain', onDrain);
    stream.addEventListener('idle', onIdle);
    stream.addEventListener('close', onIdle);
  });
}
