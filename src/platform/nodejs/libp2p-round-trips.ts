/**
 * Round trips to peers: measured a few times when a peer has come and seldom after, so that an idle connection stays
 * silent. The least counts: what a busy machine or a lost packet adds is not the link's. It knows no connections.
 */
import type { NodeId, Transport } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';

export interface RoundTripsOptions {
  readonly clock: Clock;
  readonly onPeerChange: Transport['onPeerChange'];
  /** Milliseconds there and back; rejects when there is no answer. */
  readonly ping: (peer: NodeId) => Promise<number>;
}

export interface RoundTrips {
  readonly of: Transport['roundTripMs'];
  close(): void;
}

/** Between the measurements of a row. The last comes late: nodes that have just started are busy. */
const pausesMs = [500, 1_000, 2_000, 30_000];
/** As often as Yamux pings. Routes change: then the measurements before count no more. */
const renewMs = 10 * 60_000;

interface Measured {
  leastMs: number | undefined;
  cancel: () => void;
}

export function measureRoundTrips({ clock, onPeerChange, ping }: RoundTripsOptions): RoundTrips {
  const peers = new Map<NodeId, Measured>();
  const measure = async (peer: NodeId, entry: Measured, done = 0, leastMs?: number): Promise<void> => {
    const tookMs = await ping(peer).catch(() => undefined);
    if (peers.get(peer) !== entry) return;
    const least = tookMs === undefined ? leastMs : Math.min(leastMs ?? tookMs, tookMs);
    const pauseMs = pausesMs[done];
    const isLast = pauseMs === undefined;
    // While a new row of measurements goes on, the one before counts.
    if (least !== undefined && (isLast || least < (entry.leastMs ?? Number.POSITIVE_INFINITY)))
      entry.leastMs = least;
    entry.cancel = isLast
      ? clock.setTimer(renewMs, () => void measure(peer, entry))
      : clock.setTimer(pauseMs, () => void measure(peer, entry, done + 1, least));
  };
  const forget = (peer: NodeId) => {
    peers.get(peer)?.cancel();
    peers.delete(peer);
  };
  const unlisten = onPeerChange((peer, connected) => {
    forget(peer);
    if (!connected) return;
    const entry: Measured = { leastMs: undefined, cancel: () => {} };
    peers.set(peer, entry);
    void measure(peer, entry);
  });
  return {
    of: (peer) => peers.get(peer)?.leastMs,
    close: () => {
      unlisten();
      for (const peer of [...peers.keys()]) forget(peer);
    },
  };
}
