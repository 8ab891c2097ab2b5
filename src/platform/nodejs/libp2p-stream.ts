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
  type FrameReader,
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

interface Framed {
  readonly stream: Stream;
  readonly options: FrameStreamOptions;
  readonly reader: FrameReader;
  readonly onMessage: (event: StreamMessageEvent) => void;
  isOpen: boolean;
  /** Frames that have not left. */
  sending: number;
  /** Resolves with the last of them: one is written at a time. */
  writing: Promise<void>;
  cancelIdle: () => void;
  cancelFrame: (() => void) | null;
}

export function openFrameStream(stream: Stream, options: FrameStreamOptions): FrameStream {
  const framed: Framed = {
    stream,
    options,
    reader: createFrameReader(options.admit, options.onFrame),
    onMessage: (event) => takeMessage(framed, event),
    isOpen: true,
    sending: 0,
    writing: Promise.resolve(),
    cancelIdle: () => {},
    cancelFrame: null,
  };
  spareWindowUpdates(stream);
  stream.addEventListener('close', () => end(framed, reject('unreachable', 'the stream closed')));
  stream.addEventListener('message', framed.onMessage);
  return {
    get isOpen() {
      return framed.isOpen;
    },
    send(kind, body) {
      framed.sending += 1;
      framed.writing = framed.writing
        .then(() => write(framed, kind, body))
        .finally(() => {
          framed.sending -= 1;
        });
      return framed.writing;
    },
    trySend(kind, body) {
      if (!framed.isOpen || framed.sending > 0 || stream.writeBufferLength > 0) return false;
      try {
        stream.send(encodeFrame({ kind, body }));
      } catch {
        end(framed, reject('unreachable', 'the stream is closed'));
      }
      return framed.isOpen;
    },
    end: (reason) => end(framed, reason),
  };
}

function end(framed: Framed, reason: Rejection): void {
  if (!framed.isOpen) return;
  framed.isOpen = false;
  framed.cancelIdle();
  framed.cancelFrame?.();
  framed.stream.removeEventListener('message', framed.onMessage);
  framed.stream.abort(new Error(reason.code));
  framed.options.onEnd(reason);
}

function takeMessage(framed: Framed, { data }: StreamMessageEvent): void {
  framed.options.onProgress();
  for (const piece of data instanceof Uint8Array ? [data] : data) {
    const failure = framed.isOpen ? framed.reader.push(piece) : null;
    if (failure) end(framed, failure);
  }
  watchFrame(framed);
}

/** A frame that has begun must go on and come to its end. */
function watchFrame(framed: Framed): void {
  const { clock, idleTimeoutMs, frameTimeoutMs } = framed.options;
  framed.cancelIdle();
  if (!framed.isOpen || !framed.reader.isInside()) {
    framed.cancelFrame?.();
    framed.cancelFrame = null;
    return;
  }
  const stalled = () => end(framed, reject('stalled', 'in the middle of a message'));
  framed.cancelIdle = clock.setTimer(idleTimeoutMs, stalled);
  framed.cancelFrame ??= clock.setTimer(frameTimeoutMs, stalled);
}

async function write(framed: Framed, kind: FrameKind, body: Uint8Array): Promise<void> {
  if (!framed.isOpen) return;
  try {
    if (body.length <= joinedBytesMax) return await sendPiece(framed, encodeFrame({ kind, body }));
    framed.stream.send(frameHeader(kind, body.length));
    for (let offset = 0; offset < body.length && framed.isOpen; offset += pieceBytesMax) {
      // A socket that takes everything at once must not keep this thread from its other work.
      if (offset > 0) await nextTurn();
      if (framed.isOpen) await sendPiece(framed, body.subarray(offset, offset + pieceBytesMax));
    }
  } catch {
    end(framed, reject('unreachable', 'the stream is closed'));
  }
}

async function sendPiece(framed: Framed, piece: Uint8Array): Promise<void> {
  const { clock, idleTimeoutMs, onProgress } = framed.options;
  framed.stream.send(piece);
  if (!(await emptied(framed.stream, clock, idleTimeoutMs, onProgress))) {
    end(framed, reject('stalled', 'the peer takes no bytes'));
  }
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
