/**
 * Gathers what comes one by one and goes on together: one batch at a time, and those who were in the last one are waited
 * for a moment, because they come back about together. It does not know what the items are.
 */
import type { Clock } from '../std/clock.ts';

export interface GatherOptions<Item> {
  readonly clock: Clock;
  /** Takes the next batch out of what waits, in order; may refuse items on the way, and must shorten the list. */
  readonly take: (waiting: Item[]) => Item[];
  /** Must not throw. */
  readonly run: (batch: readonly Item[]) => Promise<void>;
  /** How long the others are waited for. */
  readonly windowMs: number;
}

export interface Gather<Item> {
  push(item: Item): void;
  waiting(): number;
  /** Removes and returns what waits. */
  clear(): Item[];
}

export function createGather<Item>({ clock, take, run, windowMs }: GatherOptions<Item>): Gather<Item> {
  const waiting: Item[] = [];
  let isRunning = false;
  /** Items expected before the next batch goes. */
  let expected = 1;
  let complete: (() => void) | undefined;

  const enough = () =>
    new Promise<void>((resolve) => {
      if (waiting.length >= expected) return resolve();
      const cancel = clock.setTimer(windowMs, () => complete?.());
      complete = () => {
        complete = undefined;
        cancel();
        resolve();
      };
    });
  const runAll = async () => {
    isRunning = true;
    while (waiting.length > 0) {
      await enough();
      const batch = take(waiting);
      if (batch.length > 0) await run(batch);
      // Those of this batch, and those who came meanwhile.
      expected = Math.max(1, batch.length + waiting.length);
      // What was waiting for this batch goes on first, and may come again.
      await Promise.resolve();
    }
    isRunning = false;
  };
  return {
    push(item) {
      waiting.push(item);
      if (!isRunning) void runAll();
      else if (waiting.length >= expected) complete?.();
    },
    waiting: () => waiting.length,
    clear: () => waiting.splice(0),
  };
}
