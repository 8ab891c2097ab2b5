/** Nodes in virtual time, joined by the in-memory hub: everybody is connected to everybody, and every link is the same. */
import { createVirtualClock, type VirtualClock } from '../../sim/virtual-clock.ts';
import { createMemoryHub } from '../../src/net/memory-transport.ts';
import type { NodeId, Transport } from '../../src/net/transport.ts';
import { seededRandom } from '../../src/std/random.ts';

export interface VirtualNetwork {
  readonly clock: VirtualClock;
  join(id: NodeId): Transport;
  run(ms: number): Promise<void>;
  /** Lets time pass until the work is done. */
  settle<Result>(work: Promise<Result>): Promise<Result>;
}

const settleMsMax = 300_000;

export function createVirtualNetwork(options: {
  readonly startMs?: number;
  /** Of every message, one way. */
  readonly delayMs: number;
}): VirtualNetwork {
  const clock = createVirtualClock(options.startMs);
  const random = seededRandom(new Uint8Array(16).fill(1));
  const hub = createMemoryHub({ clock, random, link: () => ({ delayMs: options.delayMs, lost: false }) });
  return {
    clock,
    join: (id) => hub.join(id),
    run: (ms) => clock.run(clock.nowMs() + ms),
    settle: async (work) => {
      let isDone = false;
      const done = () => {
        isDone = true;
      };
      work.then(done, done);
      await clock.run(clock.nowMs() + settleMsMax, () => isDone);
      if (!isDone) throw new Error('the work never ends');
      return work;
    },
  };
}
