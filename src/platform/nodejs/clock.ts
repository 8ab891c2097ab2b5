/** The real clock of a Node.js process. Its timers never keep the process alive: what must run holds something open. */
import type { Clock } from '../../std/clock.ts';

/** Longest delay that Node's timers take; longer ones would fire at once. */
const delayMsMax = 0x7fff_ffff;

/** A timer set for longer than 24.8 days fires then. */
export function systemClock(): Clock {
  return {
    nowMs: () => Date.now(),
    setTimer(delayMs, callback) {
      const timer = setTimeout(callback, Math.min(Math.max(0, delayMs), delayMsMax));
      timer.unref();
      return () => clearTimeout(timer);
    },
  };
}
