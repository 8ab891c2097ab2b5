/**
 * Stopping with whoever started this process: `demo` and `swarm` talk to their nodes over an IPC channel, and a node
 * whose channel closes stops even when its parent was killed outright. npm closes nothing, so its death is noticed by
 * this process changing hands.
 */
import { readFileSync } from 'node:fs';
import type { NodeEvent } from '../peer/events.ts';
import { InterruptedError } from './errors.ts';

/** The only message a parent sends. */
export interface StopRequest {
  readonly type: 'stop';
}

/** A node that has not stopped this long after its parent died is ended: nothing may be left running alone. */
const orphanGraceMs = 10_000;
const pollMs = 1_000;

export function hasParentChannel(): boolean {
  return process.send !== undefined;
}

/** Tells the parent, if there is one that listens. */
export function sendToParent(event: NodeEvent): void {
  if (process.send && process.connected) process.send(event, undefined, undefined, () => undefined);
}

/** Aborts when the parent asks to stop, or is gone. */
export function watchParent(orphaned: () => void = endSoon): AbortSignal {
  const controller = new AbortController();
  const stop = (error: InterruptedError) => controller.abort(error);
  if (process.send) {
    const leave = () => {
      stop(new InterruptedError('the end of its parent process', 1));
      orphaned();
    };
    process.on('message', (message: StopRequest) => {
      if (message?.type === 'stop') stop(new InterruptedError('its parent process', 0));
    });
    process.on('disconnect', leave);
    if (!process.connected) leave();
  } else if (
    process.env.npm_lifecycle_event !== undefined ||
    process.env.NEUROSHARD_LAUNCHER_PID !== undefined
  ) {
    const ancestors = findAncestors();
    const timer = setInterval(() => {
      if (findAncestors() === ancestors) return;
      clearInterval(timer);
      stop(new InterruptedError('the end of npm', 1));
    }, pollMs);
    timer.unref();
  }
  return controller.signal;
}

/** Parent and, where /proc tells, grandparent: between npm and this process stands a shell that outlives npm. */
function findAncestors(): string {
  const parent = process.ppid;
  try {
    const stat = readFileSync(`/proc/${parent}/stat`, 'latin1');
    // Fields after the command's name, which stands in parentheses and may hold anything: state, then parent.
    return `${parent} ${stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]}`;
  } catch {
    return String(parent);
  }
}

/** The channel no longer keeps this process alive: called when the command is done. */
export function releaseParent(): void {
  process.channel?.unref();
}

function endSoon(): void {
  setTimeout(() => process.exit(1), orphanGraceMs).unref();
}
