/**
 * One request stream: reads frames, writes frames in pieces with back-pressure, and watches for silence. It knows
 * neither which side asked nor what the frames mean.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Stream, StreamMessageEvent } from '@libp2p/interface';
import {
  type Admission,
  createFrameReader,
  encodeFrame,
  type Frame,
  type FrameKind,
  frameHeader,
} from '../../net/frame.ts';
import { pieceBytesMax } from '../../net/limits.ts';
import type { Clock } from '../../std/clock.ts';
import { type Rejection, reject } from '../../std/outcome.ts';
import { spareWindowUpdates } from './libp2p-window.ts';

export interface FrameStreamOptions {
  readonly clock: Clock;
  readonly idleTimeoutMs: number;
  /** Longest time that one incoming frame may take. */
  readonly frameTimeoutMs: number;
  readonly admit: (kind: FrameKind, bodyBytes: number) => Admission;
  readonly onFrame: (frame: Frame) => void;
  /** Any bytes moved in either direction. */
  readonly onProgress: () => void;
  /** Once, whoever ended it: `unreachable` when the stream or connection closed, else what the peer did. */
  readonly onEnd: (reason: Rejection) => void;
}

export interface FrameStream {
  /** Resolves when the bytes have left our buffers; ends the stream as `stalled` when the peer takes nothing. */
  send(kind: FrameKind, body: Uint8Array): Promise<void>;
  /** Sends now or, while earlier bytes have not left, not at all. */
  trySend(kind: FrameKind, body: Uint8Array): boolean;
  /** Resets the stream; what has not left is dropped. */
  end(reason: Rejection): void;
  readonly isOpen: boolean;
}

/** Bodies up to so many bytes go in one message with their header. */
const joinedBytesMax = 64 * 1024;

export function openFrameStream(stream: Stream, options: FrameStreamOptions): FrameStream {
  const { clock, idleTimeoutMs } = options;
  let open = true;
  let sending = 0;
  let writing: Promise<void> = Promise.resolve();
  let cancelIdle = () => {};
  let cancelFrame: (() => void) | null = null;
  const reader = createFrameReader(options.admit, options.onFrame);

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
    if (!open || !reader.isInside()) {
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

  async function sendPiece(piece: Uint8Array): Promise<void> {
    stream.send(piece);
    if (!(await emptied(stream, clock, idleTimeoutMs, options.onProgress))) {
      end(reject('stalled', 'the peer takes no bytes'));
    }
  }

  async function write(kind: FrameKind, body: Uint8Array): Promise<void> {
    if (!open) return;
    try {
      if (body.length <= joinedBytesMax) return await sendPiece(encodeFrame({ kind, body }));
      stream.send(frameHeader(kind, body.length));
      for (let offset = 0; offset < body.length && open; offset += pieceBytesMax) {
        // A socket that takes everything at once must not keep this thread from its other work.
        if (offset > 0) await nextTurn();
        if (open) await sendPiece(body.subarray(offset, offset + pieceBytesMax));
      }
    } catch {
      end(reject('unreachable', 'the stream is closed'));
    }
  }

  spareWindowUpdates(stream);
  stream.addEventListener('close', () => end(reject('unreachable', 'the stream closed')));
  stream.addEventListener('message', onMessage);
  return {
    get isOpen() {
      return open;
    },
    send(kind, body) {
      sending += 1;
      writing = writing
        .then(() => write(kind, body))
        .finally(() => {
          sending -= 1;
        });
      return writing;
    },
    trySend(kind, body) {
      if (!open || sending > 0 || stream.writeBufferLength > 0) return false;
      try {
        stream.send(encodeFrame({ kind, body }));
      } catch {
        end(reject('unreachable', 'the stream is closed'));
      }
      return open;
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
