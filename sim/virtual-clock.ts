/**
 * Virtual time: a queue of timers that fire in order of time, then of setting, each after the promises of the one
 * before have settled, so real asynchronous code runs deterministically and hours pass in milliseconds.
 */
import type { Clock } from '../src/std/clock.ts';

interface Timer {
  readonly atMs: number;
  readonly order: number;
  readonly callback: () => void;
  cancelled: boolean;
}

export interface VirtualClock extends Clock {
  /** Fires timers up to `untilMs`, or until `done` holds; time stands at the last one fired or at `untilMs`. */
  run(untilMs: number, done?: () => boolean): Promise<void>;
  /** Lets `ms` of virtual time pass. */
  advance(ms: number): Promise<void>;
  /** Real work whose end takes more than promises (an engine's threads): time stands still until it is over. */
  during<T>(work: Promise<T>): Promise<T>;
  /** Timers fired so far. */
  fired(): number;
}

export function createVirtualClock(startMs = 1_700_000_000_000): VirtualClock {
  const heap: Timer[] = [];
  const holds = new Set<Promise<unknown>>();
  let nowMs = startMs;
  let order = 0;
  let fired = 0;

  /** Lets every promise that can settle do so: microtasks run out before the immediate, held work is waited for. */
  const settle = async () => {
    await new Promise<void>((resolve) => setImmediate(resolve));
    while (holds.size > 0) {
      await Promise.allSettled(holds);
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  };

  const clock: VirtualClock = {
    nowMs: () => nowMs,
    setTimer(delayMs, callback) {
      const timer: Timer = { atMs: nowMs + Math.max(0, delayMs), order: order++, callback, cancelled: false };
      push(heap, timer);
      return () => {
        timer.cancelled = true;
      };
    },
    async run(untilMs, done = () => false) {
      await settle();
      while (!done()) {
        const next = heap[0];
        if (!next || next.atMs > untilMs) {
          nowMs = Math.max(nowMs, untilMs);
          return;
        }
        pop(heap);
        if (next.cancelled) continue;
        nowMs = next.atMs;
        fired += 1;
        next.callback();
        await settle();
      }
    },
    async during(work) {
      holds.add(work);
      try {
        return await work;
      } finally {
        holds.delete(work);
      }
    },
    advance: (ms) => clock.run(nowMs + ms),
    fired: () => fired,
  };
  return clock;
}

function before(a: Timer, b: Timer): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

function push(heap: Timer[], timer: Timer): void {
  let at = heap.push(timer) - 1;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    if (!before(timer, heap[parent]!)) break;
    heap[at] = heap[parent]!;
    at = parent;
  }
  heap[at] = timer;
}

function pop(heap: Timer[]): void {
  const last = heap.pop()!;
  if (heap.length === 0) return;
  let at = 0;
  for (;;) {
    let child = 2 * at + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child += 1;
    if (!before(heap[child]!, last)) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = last;
}
