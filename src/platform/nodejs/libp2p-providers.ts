/**
 * Who provides what, by the DHT: records of this node, and lookups that end in connections. It does not know what the
 * keys mean, and believes nobody: a provider is whoever says so.
 */
import { createHash } from 'node:crypto';
import type { Libp2p } from '@libp2p/interface';
import { peerIdFromMultihash } from '@libp2p/peer-id';
import type { Multiaddr } from '@multiformats/multiaddr';
import { findProvidersMs, providersMax } from '../../net/limits.ts';
import type { NodeId, Transport } from '../../net/transport.ts';
import { isLoopback, nodeOfPeer, withPeer } from './libp2p-address.ts';

export interface ProvidersOptions {
  readonly libp2p: Libp2p;
  /** Goes into every key: networks never mix. */
  readonly networkPrefix: string;
  readonly self: NodeId;
  readonly localSwarm: boolean;
  /** The node reached; throws when nobody was. */
  readonly dial: (addresses: readonly Multiaddr[]) => Promise<NodeId>;
  readonly isPeer: (node: NodeId) => boolean;
  readonly onPeerChange: Transport['onPeerChange'];
  readonly isRefused: (node: NodeId) => boolean;
}

export interface Providers {
  readonly provide: Transport['provide'];
  readonly find: Transport['findProviders'];
  close(): void;
}

const provideTimeoutMs = 30_000;
/** Of one provider: what else it lists is left out. */
const addressesMax = 4;

/** Without a DHT nothing is told and nobody is found. */
export function createProviders(options: ProvidersOptions): Providers {
  const { libp2p, networkPrefix } = options;
  const closing = new AbortController();
  const within = (ms: number, signal?: AbortSignal) =>
    AbortSignal.any([closing.signal, AbortSignal.timeout(ms), ...(signal ? [signal] : [])]);
  return {
    async provide(key) {
      if (closing.signal.aborted) return;
      const signal = within(provideTimeoutMs);
      // Nobody to tell, or not in time: the caller will say it again.
      await libp2p.contentRouting.provide(cidOf(networkPrefix, key), { signal }).catch(() => {});
    },
    async find(key, given) {
      const signal = within(findProvidersMs, given);
      const asked = new Map<NodeId, Promise<boolean>>();
      try {
        if (signal.aborted) return [];
        for await (const { id, multiaddrs } of libp2p.contentRouting.findProviders(
          cidOf(networkPrefix, key),
          { signal },
        )) {
          const node = nodeOfPeer(id);
          if (node === null || node === options.self || asked.has(node) || options.isRefused(node)) continue;
          const addresses = multiaddrs
            .filter((address) => isLoopback(address) === options.localSwarm)
            .map((address) => withPeer(address, id));
          asked.set(node, meet(options, node, addresses.slice(0, addressesMax), signal));
          if (asked.size >= providersMax) break;
        }
      } catch {
        // No DHT, or the time is up: who was found until then counts.
      }
      const met = await Promise.all([...asked].map(async ([node, isMet]) => ((await isMet) ? [node] : [])));
      return met.flat().sort();
    },
    close: () => closing.abort(),
  };
}

/** CIDs are made by whoever has a multihash; a peer id of nobody is one, and saves a dependency. */
function cidOf(networkPrefix: string, key: string) {
  const digest = new Uint8Array(createHash('sha256').update(`${networkPrefix}\n${key}`).digest());
  const sha256Code = 0x12;
  const bytes = new Uint8Array([sha256Code, digest.length, ...digest]);
  return peerIdFromMultihash({ code: sha256Code, size: digest.length, digest, bytes }).toCID();
}

/** Whether the node is a peer in the end: connected, greeted, its subscriptions known. */
async function meet(
  { isPeer, onPeerChange, dial }: ProvidersOptions,
  node: NodeId,
  addresses: readonly Multiaddr[],
  signal: AbortSignal,
): Promise<boolean> {
  if (isPeer(node)) return true;
  if (addresses.length === 0) return false;
  return await new Promise<boolean>((resolve) => {
    const end = (met: boolean) => {
      unlisten();
      signal.removeEventListener('abort', onAbort);
      resolve(met);
    };
    const onAbort = () => end(isPeer(node));
    const unlisten = onPeerChange((peer, connected) => {
      if (peer === node && connected) end(true);
    });
    signal.addEventListener('abort', onAbort, { once: true });
    dial(addresses).catch(() => end(isPeer(node)));
  });
}
