/**
 * What one life of a simulated node owns: a clock whose timers die with it, and a view of its disk that a crash cuts
 * off between two writes. Only the disk outlives a life; everything else is amnesia.
 */
import type { LedgerStore } from '../src/ledger/store.ts';
import type { Clock } from '../src/std/clock.ts';
import type { Random } from '../src/std/random.ts';
import { memoryStore, type Store } from '../src/std/store.ts';
import { between } from './random.ts';

export interface Life {
  alive: boolean;
}

export function lifeClock(clock: Clock, life: Life): Clock {
  return {
    nowMs: () => clock.nowMs(),
    setTimer: (delayMs, callback) =>
      clock.setTimer(delayMs, () => {
        if (life.alive) callback();
      }),
  };
}

export type Disk = Store;

export const createDisk: () => Disk = memoryStore;

/** A write takes effect a while after it was asked for, if the node still lives. */
function durableWrites(clock: Clock, life: Life, random: Random, writeMs: readonly [number, number]) {
  return (write: () => Promise<void>) =>
    new Promise<void>((resolve, reject) => {
      if (!life.alive) return;
      clock.setTimer(between(random, ...writeMs), () => {
        if (life.alive) write().then(resolve, reject);
      });
    });
}

/** Writes take a while; one that a crash overtakes either happened or did not, and its promise never settles. */
export function lifeStore(
  disk: Disk,
  clock: Clock,
  life: Life,
  random: Random,
  writeMs: readonly [number, number],
): Store {
  const durable = durableWrites(clock, life, random, writeMs);
  return {
    get: (key) => disk.get(key),
    list: (prefix) => disk.list(prefix),
    put: (key, value) => {
      const copy = value.slice();
      return durable(() => disk.put(key, copy));
    },
    delete: (key) => durable(() => disk.delete(key)),
  };
}

/** The same for a ledger: a block is kept whole, or not. */
export function lifeLedger(
  kept: LedgerStore,
  clock: Clock,
  life: Life,
  random: Random,
  writeMs: readonly [number, number],
): LedgerStore {
  const durable = durableWrites(clock, life, random, writeMs);
  return {
    ...kept,
    install: (head, rows) => {
      const all = [...rows];
      return durable(() => kept.install(head, all));
    },
    append: (block, changes) => durable(() => kept.append(block, changes)),
  };
}
