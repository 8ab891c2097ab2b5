/** Draws for the simulator, all from one seed: named streams, so that a new draw in one place shifts no other. */
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import { type Random, seededRandom, uniform, uniformBelow } from '../src/std/random.ts';

export function stream(seed: number, ...names: readonly (string | number)[]): Random {
  return seededRandom(sha256(utf8(`sim ${seed} ${names.join(' ')}`)));
}

export function between(random: Random, low: number, high: number): number {
  return low + (high - low) * uniform(random);
}

export function chance(random: Random, probability: number): boolean {
  return uniform(random) < probability;
}

export function pick<T>(random: Random, items: readonly T[]): T {
  return items[uniformBelow(random, items.length)]!;
}

/** Some of the items, in random order. */
export function sample<T>(random: Random, items: readonly T[], count: number): T[] {
  const rest = items.slice();
  const chosen: T[] = [];
  while (chosen.length < count && rest.length > 0) {
    chosen.push(rest.splice(uniformBelow(random, rest.length), 1)[0]!);
  }
  return chosen;
}
