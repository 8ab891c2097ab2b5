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

const measurements = 4;
const pauseMs = 500;
/** As often as Yamux pings. Routes change: then the measurements before count no more. */
const renewMs = 10 * 60_000;

interface Measured {
  leastMs: number | undefined;
  cancel: () => void;
}

export function measureRoundTrips({ clock, onPeerChange, ping }: RoundTripsOptions): RoundTrips {
  const peers = new Map<NodeId, Measured>();
  const measure = async (peer: NodeId, entry: Measured, left: number, leastMs?: number): Promise<void> => {
    const tookMs = await ping(peer).catch(() => undefined);
    if (peers.get(peer) !== entry) return;
    const least = tookMs === undefined ? leastMs : Math.min(leastMs ?? tookMs, tookMs);
    // While a new row of measurements goes on, the one before counts.
    if (least !== undefined && (left === 0 || least < (entry.leastMs ?? Number.POSITIVE_INFINITY)))
      entry.leastMs = least;
    const next =
      left > 0 ? () => measure(peer, entry, left - 1, least) : () => measure(peer, entry, measurements - 1);
    entry.cancel = clock.setTimer(left > 0 ? pauseMs : renewMs, () => void next());
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
    void measure(peer, entry, measurements - 1);
  });
  return {
    of: (peer) => peers.get(peer)?.leastMs,
    close: () => {
      unlisten();
      for (const peer of [...peers.keys()]) forget(peer);
    },
  };
}
