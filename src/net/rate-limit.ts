/**
 * Rates of requests and announcements, one token bucket for each key: a burst of up to a minute's worth, then the
 * mean rate. It does not know what is counted, and it remembers a bounded number of keys.
 */
import type { Clock } from '../std/clock.ts';
import { rememberedPeersMax } from './limits.ts';

interface Bucket {
  tokens: number;
  atMs: number;
}

export interface RateLimiter {
  /** Whether `key` may do one more; false when it has used up `perMinuteMax`. */
  take(key: string, perMinuteMax: number): boolean;
}

const minuteMs = 60_000;

export function createRateLimiter(clock: Clock, keysMax: number = rememberedPeersMax): RateLimiter {
  /** In order of last use, so that the least recently used key is forgotten first. */
  const buckets = new Map<string, Bucket>();
  return {
    take(key, perMinuteMax) {
      const nowMs = clock.nowMs();
      const bucket = buckets.get(key) ?? { tokens: perMinuteMax, atMs: nowMs };
      const elapsedMs = Math.max(0, nowMs - bucket.atMs);
      bucket.tokens = Math.min(perMinuteMax, bucket.tokens + (elapsedMs * perMinuteMax) / minuteMs);
      bucket.atMs = nowMs;
      buckets.delete(key);
      buckets.set(key, bucket);
      if (buckets.size > keysMax) buckets.delete(buckets.keys().next().value as string);
      if (bucket.tokens < 1) return false;
      bucket.tokens -= 1;
      return true;
    },
  };
}
