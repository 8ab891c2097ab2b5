/**
 * Penalties for peers that break rules. Points heal with time; a peer that collects too many within that time is
 * refused for a while and then starts afresh. It does not know about connections: the transport asks and acts.
 */
import type { Clock } from '../std/clock.ts';
import { rememberedPeersMax } from './limits.ts';

export interface ScorePolicy {
  /** Points by code; other codes cost `otherPoints`. */
  readonly points: Readonly<Record<string, number>>;
  readonly otherPoints: number;
  readonly healPointsPerMinute: number;
  /** From this many points on a peer is refused. */
  readonly refuseAtPoints: number;
  readonly refuseMs: number;
}

/** Five malformed messages in a short time are enough; a lossy link's stalls take twenty. */
export const defaultScorePolicy: ScorePolicy = {
  points: {
    malformed: 20,
    'too-large': 20,
    'not-canonical': 20,
    'bad-signature': 34,
    'bad-proof': 34,
    'bad-certificate': 34,
    'bad-state-leaf': 34,
    'hash-mismatch': 34,
    'not-fraud': 34,
    refused: 2,
    stalled: 5,
    timeout: 2,
  },
  otherPoints: 10,
  healPointsPerMinute: 10,
  refuseAtPoints: 100,
  refuseMs: 120_000,
};

export interface PeerScores {
  /** Adds the code's points; true when this very penalty makes the peer refused. */
  penalize(peer: string, code: string): boolean;
  isRefused(peer: string): boolean;
  /** Points that have not healed yet. */
  points(peer: string): number;
}

interface PeerRecord {
  points: number;
  atMs: number;
  refusedUntilMs: number;
}

const minuteMs = 60_000;

export function createPeerScores(
  clock: Clock,
  policy: ScorePolicy = defaultScorePolicy,
  peersMax: number = rememberedPeersMax,
): PeerScores {
  const records = new Map<string, PeerRecord>();

  function heal(record: PeerRecord): void {
    const nowMs = clock.nowMs();
    const healed = (Math.max(0, nowMs - record.atMs) * policy.healPointsPerMinute) / minuteMs;
    record.points = Math.max(0, record.points - healed);
    record.atMs = nowMs;
  }

  return {
    penalize(peer, code) {
      const record = records.get(peer) ?? { points: 0, atMs: clock.nowMs(), refusedUntilMs: 0 };
      heal(record);
      records.delete(peer);
      records.set(peer, record);
      if (records.size > peersMax) records.delete(records.keys().next().value as string);
      if (record.refusedUntilMs > clock.nowMs()) return false;
      record.points += policy.points[code] ?? policy.otherPoints;
      if (record.points < policy.refuseAtPoints) return false;
      record.points = 0;
      record.refusedUntilMs = clock.nowMs() + policy.refuseMs;
      return true;
    },
    isRefused: (peer) => (records.get(peer)?.refusedUntilMs ?? 0) > clock.nowMs(),
    points(peer) {
      const record = records.get(peer);
      if (!record) return 0;
      heal(record);
      return record.points;
    },
  };
}
