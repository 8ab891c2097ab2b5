/** Progress frames: the sign of life that a callee gives while it works, eight bytes: progress and queue depth. */
import type { Clock } from '../std/clock.ts';

/** Time between two frames. */
export const frameMs = 50;

export interface Frame {
  /** Grows whenever the work has moved on. */
  readonly progress: number;
  /** Tasks waiting at the callee. */
  readonly queueDepth: number;
}

export function writeFrame({ progress, queueDepth }: Frame): Uint8Array {
  const bytes = new Uint8Array(8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, progress, true);
  view.setUint32(4, queueDepth, true);
  return bytes;
}

/** Undefined for bytes that are no frame. */
export function readFrame(bytes: Uint8Array): Frame | undefined {
  if (bytes.length !== 8) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return { progress: view.getUint32(0, true), queueDepth: view.getUint32(4, true) };
}

export interface FrameOptions {
  readonly clock: Clock;
  readonly send: (frame: Uint8Array) => void;
  readonly queueDepth: () => number;
}

/** Sends a frame at once and then every `frameMs`; `moved` counts as progress and is told at the next frame. */
export function sendFrames({ clock, send, queueDepth }: FrameOptions) {
  let progress = 0;
  let cancel = () => {};
  const next = () => {
    send(writeFrame({ progress, queueDepth: queueDepth() }));
    cancel = clock.setTimer(frameMs, next);
  };
  next();
  return {
    moved: () => {
      progress++;
    },
    stop: () => cancel(),
  };
}
