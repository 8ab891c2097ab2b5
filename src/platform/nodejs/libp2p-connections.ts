/**
 * Connections of a libp2p node: dialling, opening streams, replacing dead ones, hanging up. It does not know
 * what travels on them or who is a peer.
 */
import type { Connection, Libp2p, PeerId, Stream } from '@libp2p/interface';
import type { Ping } from '@libp2p/ping';
import type { Multiaddr } from '@multiformats/multiaddr';
import type { NodeId } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';
import { accept, type Outcome, reject } from '../../std/outcome.ts';
import { isLoopback, nodeOfPeer, withoutPeer } from './libp2p-address.ts';
import type { Neighbour } from './libp2p-hello.ts';

export interface Connections {
  /** The node reached; throws when nobody was. */
  dial(addresses: readonly Multiaddr[]): Promise<NodeId>;
  openStream(peer: NodeId, wireId: string, signal: AbortSignal): Promise<Outcome<Stream>>;
  /** The latest open one. */
  newest(peer: NodeId): Connection | undefined;
  hangUp(peer: NodeId): void;
  /** Milliseconds there and back, of a few bytes; throws when there is no answer. */
  ping(peer: NodeId): Promise<number>;
  /** How others may reach this peer; null when nothing is known of it. */
  describe(peer: NodeId): Promise<Neighbour | null>;
}

export interface ConnectionsOptions {
  readonly libp2p: Libp2p;
  readonly clock: Clock;
  readonly localSwarm: boolean;
  /** Streams that one connection may have open for one protocol. */
  readonly streamsMax: number;
}

const dialTimeoutMs = 10_000;
const pingTimeoutMs = 5_000;
/** Two connections this close together are both sides dialling at once. */
const sameTimeMs = 3_000;
/** What is on its way on the old connection may still arrive. */
const settleMs = 1_000;

export function createConnections(options: ConnectionsOptions): Connections {
  const { libp2p } = options;
  libp2p.addEventListener('connection:open', (event) => replaceDead(options, event.detail));
  const openTo = (peer: NodeId) =>
    libp2p.getConnections().filter((connection) => nodeOfPeer(connection.remotePeer) === peer);
  const newestTo = (peer: NodeId) =>
    openTo(peer)
      .filter(({ status }) => status === 'open')
      .sort((a, b) => b.timeline.open - a.timeline.open)[0];
  return {
    async dial(addresses) {
      const signal = AbortSignal.timeout(dialTimeoutMs);
      const connection = await libp2p.dial([...addresses], { signal });
      const peer = nodeOfPeer(connection.remotePeer);
      if (peer !== null) return peer;
      connection.abort(new Error('not a node'));
      throw new Error('not a node');
    },
    async openStream(peer, wireId, signal) {
      const connection = newestTo(peer);
      if (!connection) return reject('unreachable', 'not connected');
      try {
        return accept(await connection.newStream(wireId, { signal, maxOutboundStreams: options.streamsMax }));
      } catch (error) {
        const name = error instanceof Error ? error.name : '';
        if (name === 'UnsupportedProtocolError') return reject('unknown-protocol', wireId);
        return signal.aborted ? reject('timeout') : reject('unreachable', name);
      }
    },
    newest: newestTo,
    hangUp(peer) {
      for (const connection of openTo(peer)) connection.abort(new Error('hang up'));
    },
    async ping(peer) {
      const connection = newestTo(peer);
      if (!connection) throw new Error('not connected');
      const { ping } = libp2p.services as { readonly ping: Ping };
      return await ping.ping(connection.remotePeer, { signal: AbortSignal.timeout(pingTimeoutMs) });
    },
    async describe(peer) {
      const peerId = openTo(peer)[0]?.remotePeer;
      return peerId ? await describePeer(options, peerId) : null;
    },
  };
}

async function describePeer(options: ConnectionsOptions, peerId: PeerId): Promise<Neighbour | null> {
  if (!peerId.publicKey) return null;
  const known = await options.libp2p.peerStore.get(peerId).catch(() => null);
  const addresses = (known?.addresses ?? [])
    .map(({ multiaddr }) => withoutPeer(multiaddr))
    .filter((address) => isLoopback(address) === options.localSwarm);
  return { publicKey: peerId.publicKey.raw, addresses: addresses.map(({ bytes }) => bytes) };
}

/**
 * Both sides may dial at once; then both connections stay, since closing either could cut the other side off. But a
 * peer that dials although it was connected has lost the old connection: what is sent there would go nowhere.
 */
function replaceDead(options: ConnectionsOptions, opened: Connection): void {
  if (opened.direction === 'outbound' || opened.limits) return;
  for (const other of options.libp2p.getConnections(opened.remotePeer)) {
    const isSameTime = opened.timeline.open - other.timeline.open < sameTimeMs;
    if (other.id === opened.id || other.limits || isSameTime) continue;
    options.clock.setTimer(settleMs, () => {
      if (opened.status === 'open') other.abort(new Error('replaced'));
    });
  }
}
