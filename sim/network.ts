/**
 * The simulated network: the in-memory hub of `net/` under a seeded link model with delay, spikes, loss and partitions,
 * and the one liberty that hostile nodes have over honest ones: to say different things to different peers.
 */
import { createMemoryHub, type MemoryHub } from '../src/net/memory-transport.ts';
import type { NodeId, Transport } from '../src/net/transport.ts';
import type { Clock } from '../src/std/clock.ts';
import type { Random } from '../src/std/random.ts';
import { between, chance } from './random.ts';

export interface Weather {
  /** Of announcements and of requests, 0 to 1. */
  readonly loss: number;
  readonly delayMs: readonly [number, number];
  /** How often a message takes `spikeMs` instead. */
  readonly spike: number;
  readonly spikeMs: readonly [number, number];
}

export const calm: Weather = { loss: 0, delayMs: [5, 60], spike: 0, spikeMs: [0, 0] };

export interface SimNetwork {
  readonly hub: MemoryHub;
  setWeather(weather: Weather): void;
  /** Publishes so that only `recipients` can receive it. For hostile programs. */
  publishTo(transport: Transport, recipients: readonly NodeId[], topic: string, message: Uint8Array): void;
  /** A digest of everything sent so far and when: two runs of one seed must give the same. */
  trace(): number;
  messages(): number;
}

export function createSimNetwork(
  clock: Clock,
  random: Random,
  onError: (node: NodeId, error: unknown) => void,
): SimNetwork {
  let weather = calm;
  let only: ReadonlySet<NodeId> | undefined;
  let trace = 2166136261;
  let messages = 0;

  const hub = createMemoryHub({
    clock,
    random,
    onError,
    link(from, to, bytes) {
      if (only && !only.has(to)) return { delayMs: 0, lost: true };
      messages += 1;
      for (const part of [clock.nowMs() % 1e9, from.charCodeAt(0), to.charCodeAt(0), bytes]) {
        trace = Math.imul(trace ^ Math.round(part * 1000), 16777619) >>> 0;
      }
      const range = chance(random, weather.spike) ? weather.spikeMs : weather.delayMs;
      return { delayMs: between(random, ...range), lost: chance(random, weather.loss) };
    },
  });

  return {
    hub,
    setWeather: (next) => {
      weather = next;
    },
    publishTo(transport, recipients, topic, message) {
      only = new Set(recipients);
      // The hub asks the link model before `publish` returns, so the filter holds for this message alone.
      void transport.publish(topic, message);
      only = undefined;
    },
    trace: () => trace,
    messages: () => messages,
  };
}
