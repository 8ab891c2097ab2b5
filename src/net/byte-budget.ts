/**
 * Bytes held for others: so many for each key, so many for all. What does not fit is refused at once, nobody waits, so
 * no two holders can wait for each other. It does not know what is held.
 */
import { assert } from '../std/assert.ts';

export interface ByteBudget {
  /** Sets `bytes` aside for `key`; null when that would be too much. The result gives them back, once. */
  take(key: string, bytes: number): (() => void) | null;
}

export function createByteBudget(perKeyMax: number, totalMax: number): ByteBudget {
  const held = new Map<string, number>();
  let total = 0;
  return {
    take(key, bytes) {
      const before = held.get(key) ?? 0;
      if (before + bytes > perKeyMax || total + bytes > totalMax) return null;
      held.set(key, before + bytes);
      total += bytes;
      let isHeld = true;
      return () => {
        if (!isHeld) return;
        isHeld = false;
        const left = (held.get(key) ?? 0) - bytes;
        assert(left >= 0, 'more given back than taken');
        if (left > 0) held.set(key, left);
        else held.delete(key);
        total -= bytes;
      };
    },
  };
}
