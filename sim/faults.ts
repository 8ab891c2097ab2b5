/**
 * A seeded storm: for a while nodes crash and come back, the network splits, loses and delays; then it is calm and
 * everybody is up. The schedule is drawn before the run, so the same seed always brings the same storm.
 */
import type { Cluster } from './cluster.ts';
import { calm, type Weather } from './network.ts';
import { between, chance, pick, sample, stream } from './random.ts';

export interface StormOptions {
  readonly durationMs: number;
  /** Nodes that may crash; others only suffer the network. */
  readonly mortal: readonly number[];
  /** At most this many of them down at once. */
  readonly downMax: number;
}

/** Runs the storm to its end, in which every node is up and the network whole and calm. */
export async function runStorm(cluster: Cluster, options: StormOptions): Promise<void> {
  const random = stream(cluster.seed, 'storm');
  const endMs = cluster.clock.nowMs() + options.durationMs;
  const all = cluster.keys.map((_, index) => index);
  while (cluster.clock.nowMs() < endMs) {
    await cluster.run(Math.min(between(random, 200, 12_000), endMs - cluster.clock.nowMs()));
    const what = pick(random, ['crash', 'crash', 'restart', 'restart', 'split', 'join', 'weather'] as const);
    if (what === 'crash') {
      const up = options.mortal.filter((index) => cluster.isUp(index));
      const down = options.mortal.length - up.length;
      if (up.length > 0 && down < options.downMax) cluster.crash(pick(random, up));
    } else if (what === 'restart') {
      const down = options.mortal.filter((index) => !cluster.isUp(index));
      if (down.length > 0) await cluster.start(pick(random, down));
    } else if (what === 'split' && all.length > 1) {
      const one = sample(random, all, 1 + (random.uint32() % (all.length - 1)));
      cluster.partition([one, all.filter((index) => !one.includes(index))]);
    } else if (what === 'join') {
      cluster.partition(null);
    } else {
      cluster.network.setWeather(badWeather(random));
    }
  }
  cluster.partition(null);
  cluster.network.setWeather(calm);
  for (const index of options.mortal) if (!cluster.isUp(index)) await cluster.start(index);
}

export function badWeather(random: Parameters<typeof between>[0]): Weather {
  if (chance(random, 0.3)) return calm;
  return {
    loss: between(random, 0, 0.4),
    delayMs: [between(random, 1, 30), between(random, 30, 400)],
    spike: between(random, 0, 0.2),
    spikeMs: [500, 9_000],
  };
}
