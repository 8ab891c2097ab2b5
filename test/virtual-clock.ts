/** Virtual time for tests: timers fire in order, as fast as the machine goes, and only while somebody advances it. */
import { setImmediate } from 'node:timers/promises';
import type { Clock } from '../src/std/clock.ts';

export interface VirtualClock extends Clock {
  /** Lets `ms` of virtual time pass; promises settle between timers. */
  advance(ms: number): Promise<void>;
}

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
}

export function createVirtualClock(startMs = 1_700_000_000_000): VirtualClock {
  let nowMs = startMs;
  let order = 0;
  const timers = new Set<Timer>();

  function next(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of timers) {
      if (!first || timer.atMs < first.atMs || (timer.atMs === first.atMs && timer.order < first.order))
        first = timer;
    }
    return first;
  }

  return {
    nowMs: () => nowMs,
    setTimer(delayMs, callback) {
      const timer = { atMs: nowMs + Math.max(0, delayMs), order: order++, callback };
      timers.add(timer);
      return () => void timers.delete(timer);
    },
    async advance(ms) {
      const endMs = nowMs + ms;
      await setImmediate();
      for (let timer = next(); timer && timer.atMs <= endMs; timer = next()) {
        timers.delete(timer);
        nowMs = timer.atMs;
        timer.callback();
        await setImmediate();
      }
      nowMs = endMs;
    },
  };
}
