/**
 * Ctrl-C, politely: the first SIGINT, SIGTERM or SIGHUP aborts one signal that every command watches; another one a
 * moment later ends the process at once. Knows nothing of what is being stopped.
 */
import { InterruptedError } from './errors.ts';

/**
 * npm passes on the Ctrl-C that the terminal has already sent to the whole process group, so one key press may arrive
 * twice: only a later one means "now".
 */
const forceAfterMs = 1000;

const exitCodes = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const;

export interface InterruptOptions {
  /** A child of `demo` or `swarm` leaves Ctrl-C to its parent, which asks it to stop in its own time. */
  readonly ignoreInterrupt: boolean;
  readonly log: (line: string) => void;
}

/** The signal's reason is an `InterruptedError`. */
export function watchInterrupts(options: InterruptOptions): AbortSignal {
  const controller = new AbortController();
  let firstMs: number | undefined;
  for (const [name, exitCode] of Object.entries(exitCodes)) {
    process.on(name, () => {
      if (name === 'SIGINT' && options.ignoreInterrupt) return;
      const nowMs = performance.now();
      if (firstMs === undefined) {
        firstMs = nowMs;
        options.log(name === 'SIGINT' ? 'stopping (Ctrl-C again: at once)' : `stopping (${name})`);
        controller.abort(new InterruptedError(name, exitCode));
      } else if (nowMs - firstMs > forceAfterMs) {
        process.exit(exitCode);
      }
    });
  }
  return controller.signal;
}
