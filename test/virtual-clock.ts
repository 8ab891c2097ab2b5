/** A clock that a test moves by hand. */
import type { Clock } from '../src/std/clock.ts';

export function virtualClock() {
  let nowMs = 0;
  const timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();
  const clock: Clock = {
    nowMs: () => nowMs,
    setTimer(delayMs, callback) {
      const timer = { atMs: nowMs + delayMs, callback };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  };
  const advance = async (byMs: number) => {
    await new Promise(setImmediate);
    nowMs += byMs;
    for (const timer of timers) {
      if (timer.atMs <= nowMs && timers.delete(timer)) timer.callback();
    }
    await new Promise(setImmediate);
  };
  return { clock, advance, timers };
}
