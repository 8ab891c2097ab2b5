/**
 * The real network: `Transport` over libp2p. This file joins the parts (node, greetings, dialling, requests, topics,
 * traffic) and owns their lifetime; each part is beside it in a file of its own.
 */
import { randomInt } from 'node:crypto';
import { publicKeyFromRaw } from '@libp2p/crypto/keys';
import type { Connection, PeerId, Stream } from '@libp2p/interface';
import { peerIdFromPublicKey, peerIdFromString } from '@libp2p/peer-id';
import { CODE_P2P, type Multiaddr, multiaddr } from '@multiformats/multiaddr';
import { type KeyPair, nodeIdOf } from '../../identity/keys.ts';
import { createPeerScores, type ScorePolicy } from '../../net/peer-score.ts';
import type { Protocol } from '../../net/protocol.ts';
import { createRateLimiter } from '../../net/rate-limit.ts';
import type { NodeId, RequestHandler, Transport } from '../../net/transport.ts';
import { assert } from '../../std/assert.ts';
import { toHex, utf8 } from '../../std/bytes.ts';
import type { Clock } from '../../std/clock.ts';
import { sha256 } from '../../std/hash.ts';
import { accept, CodedError, type Outcome, reject } from '../../std/outcome.ts';
import { createRequestClient } from './libp2p-client.ts';
import { createDialer } from './libp2p-dialer.ts';
import { helloProtocol, type Neighbour } from './libp2p-hello.ts';
import { createLibp2pNode, isLoopback, type Libp2pNode } from './libp2p-node.ts';
import { createPeerDirectory, type PeerDirectory } from './libp2p-peers.ts';
import { serveStream } from './libp2p-server.ts';
import { createTopics } from './libp2p-topics.ts';
import { createTrafficMeter } from './libp2p-traffic.ts';

export interface Libp2pTransportOptions {
  readonly key: KeyPair;
  /** Multiaddresses, e.g. `/ip4/127.0.0.1/tcp/0`. */
  readonly listen: readonly string[];
  /** Multiaddresses of nodes to begin with, with or without `/p2p/…`; dialled again whenever they are lost. */
  readonly bootstrap: readonly string[];
  /** Nodes of other networks are never peers. */
  readonly networkId: string;
  readonly clock: Clock;
  /** Finds nodes of the local network by multicast. Off by default. */
  readonly mdns?: boolean;
  /** Asks the router for a port. Off by default. */
  readonly upnp?: boolean;
  /** Many nodes on this machine: nothing leaves loopback, no limits for one address. Off by default. */
  readonly localSwarm?: boolean;
  /** Relays for nodes that nobody can dial; or asks relays for an address when this node is one. Off by default. */
  readonly relay?: { readonly server?: boolean; readonly client?: boolean };
  readonly connectionsMax?: number;
  readonly scorePolicy?: ScorePolicy;
  /** A handler of ours threw. */
  readonly onError?: (error: unknown) => void;
}

export interface Libp2pTransport extends Transport {
  /** Where others reach this node, each with `/p2p/…`, ready to be a bootstrap address. */
  addresses(): readonly string[];
}

const dialTimeoutMs = 10_000;
const closeTimeoutMs = 3_000;
/** Two connections this close together are both sides dialling at once; later, a second one replaces a dead one. */
const sameTimeMs = 3_000;
const streamsPerProtocolMax = 4;
/** No more nodes are dialled on others' introduction from so many peers on. */
const peersWanted = 24;

/** Starts listening and dialling. Throws `CodedError`: `bad-address`, `port-in-use`, `listen-failed`. */
export async function createLibp2pTransport(options: Libp2pTransportOptions): Promise<Libp2pTransport> {
  const host = await createHost(options);
  await startHost(host, options);
  for (const text of options.bootstrap) {
    const address = parseAddress(text);
    host.dialer.addBootstrap(address, nodeOfAddress(address));
  }
  return transportOf(host, options);
}

type Host = Awaited<ReturnType<typeof createHost>>;

async function createHost(options: Libp2pTransportOptions) {
  const { clock, key, localSwarm = false } = options;
  const self = key.nodeId;
  for (const text of [...options.listen, ...options.bootstrap]) parseAddress(text);
  const networkPrefix = toHex(sha256(utf8(options.networkId)).subarray(0, 4));
  const peerIds = new Map<NodeId, PeerId>();
  const scores = createPeerScores(clock, options.scorePolicy);
  const rates = createRateLimiter(clock);
  const traffic = createTrafficMeter();
  const onError = options.onError ?? (() => {});
  const node = await createLibp2pNode({
    secretKey: key.secretKey,
    listen: options.listen,
    networkPrefix,
    mdns: options.mdns ?? false,
    upnp: options.upnp ?? false,
    localSwarm,
    relayServer: options.relay?.server ?? false,
    relayClient: options.relay?.client ?? false,
    connectionsMax: options.connectionsMax ?? 64,
    metrics: traffic.metrics,
    isRefused(peer) {
      const id = nodeOfPeer(peer);
      return id !== null && scores.isRefused(id);
    },
  });
  const { libp2p } = node;
  const hangUp = (peer: NodeId) => {
    const peerId = peerIds.get(peer);
    for (const connection of peerId ? libp2p.getConnections(peerId) : [])
      connection.abort(new Error('hang up'));
  };
  const penalize = (peer: NodeId, code: string) => {
    if (scores.penalize(peer, code)) hangUp(peer);
  };
  const wireId = (protocol: Protocol) => protocol.id.replace('/neuroshard/', `/neuroshard/${networkPrefix}/`);
  const client = createRequestClient({
    clock,
    penalize,
    openStream: (peer, protocol, signal) => openStream(node, peerIds.get(peer), wireId(protocol), signal),
  });
  const dialer = createDialer({
    clock,
    uniform: () => randomInt(2 ** 32) / 2 ** 32,
    pauseMsMin: localSwarm ? 100 : 500,
    pauseMsMax: localSwarm ? 2_000 : 60_000,
    dial: (addresses) => dial(node, addresses),
    isConnected: (peer) => directory.hasGreeted(peer),
  });
  const directory: PeerDirectory = createPeerDirectory({
    clock,
    self,
    networkId: options.networkId,
    exchangeHello: (peer, hello) => client.request(peer, helloProtocol, hello),
    describe: (peer) => describe(node, peerIds.get(peer), localSwarm),
    onIntroduction(peer, neighbour) {
      if (directory.peers().length >= peersWanted || scores.isRefused(peer)) return;
      // Both are told of each other: the lower id dials, the other only if that has not worked.
      dialer.addNode(peer, addressesOf(neighbour), self < peer ? 0 : 1_500);
    },
    hangUp,
    penalize,
  });
  const topics = createTopics({
    gossip: node.gossip,
    prefix: `${networkPrefix}/`,
    rates,
    nodeOf: (peer) => {
      const id = nodeOfPeer(peer);
      return id !== null && directory.hasGreeted(id) ? id : null;
    },
    isFullMesh: directory.isFullMesh,
    penalize,
  });
  const endings = new Map<string, Set<() => void>>();

  async function serve(protocol: Protocol, handler: RequestHandler): Promise<void> {
    const open = new Set<() => void>();
    endings.set(protocol.id, open);
    const onStream = (stream: Stream, connection: Connection) => {
      const peer = nodeOfPeer(connection.remotePeer);
      // Who has not greeted us may only greet.
      if (peer === null || (protocol !== helloProtocol && !directory.hasGreeted(peer))) {
        stream.abort(new Error('not a peer'));
        return;
      }
      peerIds.set(peer, connection.remotePeer);
      const end = serveStream(stream, peer, protocol, handler, { clock, rates, penalize, onError });
      open.add(end);
      stream.addEventListener('close', () => open.delete(end));
    };
    await libp2p.handle(wireId(protocol), onStream, { maxInboundStreams: streamsPerProtocolMax });
  }

  async function stopServing(protocol: Protocol): Promise<void> {
    for (const end of endings.get(protocol.id) ?? []) end();
    endings.delete(protocol.id);
    await libp2p.unhandle(wireId(protocol));
  }

  return {
    self,
    node,
    peerIds,
    scores,
    traffic,
    client,
    dialer,
    directory,
    topics,
    serve,
    stopServing,
    wireId,
    penalize,
    networkPrefix,
  };
}

async function startHost(host: Host, options: Libp2pTransportOptions): Promise<void> {
  const { node, directory, dialer, peerIds } = host;
  const { libp2p, gossip } = node;
  libp2p.addEventListener('connection:open', (event) => keepOneConnection(host, event.detail));
  libp2p.addEventListener('peer:disconnect', (event) => {
    const peer = nodeOfPeer(event.detail);
    if (peer === null) return;
    directory.disconnected(peer);
    dialer.disconnected(peer);
  });
  libp2p.addEventListener('peer:discovery', (event) => {
    const peer = nodeOfPeer(event.detail.id);
    if (peer === null || peer === host.self || directory.peers().length >= peersWanted) return;
    const addresses = event.detail.multiaddrs.map((address) => withPeer(address, event.detail.id));
    dialer.addNode(peer, addresses, host.self < peer ? 500 : 2_000);
  });
  gossip.addEventListener('subscription-change', (event) => {
    const peer = nodeOfPeer(event.detail.peerId);
    if (peer !== null && libp2p.getConnections(event.detail.peerId).length > 0)
      directory.subscriptionsKnown(peer);
  });
  directory.onPeerChange((peer, connected) => {
    if (connected) dialer.connected(peer);
  });
  await libp2p.register(host.wireId(helloProtocol), {
    onConnect(peerId, connection) {
      const peer = nodeOfPeer(peerId);
      if (peer === null) return;
      peerIds.set(peer, peerId);
      directory.connected(peer, connection.direction === 'outbound');
    },
  });
  await host.serve(helloProtocol, directory.answerHello);
  try {
    await libp2p.start();
  } catch (error) {
    await closeHost(host);
    throw listenError(error, options.listen);
  }
  // A topic that everybody has: its subscription tells that a peer's subscriptions have arrived.
  host.topics.subscribe('', 0, () => false);
}

/**
 * Two connections to one peer cost twice, and gossipsub loses its stream with either. Both sides choose the same one:
 * of two made at the same time the one dialled by the lower id, else the newer, since the older is probably dead.
 */
function keepOneConnection(host: Host, opened: Connection): void {
  const peer = nodeOfPeer(opened.remotePeer);
  if (peer === null) return;
  const dialledByLower = (connection: Connection) =>
    (connection.direction === 'outbound') === host.self < peer;
  for (const other of host.node.libp2p.getConnections(opened.remotePeer)) {
    if (other.id === opened.id || other.status !== 'open' || other.limits || opened.limits) continue;
    const isSameTime = opened.timeline.open - other.timeline.open < sameTimeMs;
    const keepOther = isSameTime && dialledByLower(other) && !dialledByLower(opened);
    (keepOther ? opened : other).abort(new Error('a second connection'));
  }
}

function transportOf(host: Host, options: Libp2pTransportOptions): Libp2pTransport {
  const { directory, client, topics, traffic } = host;
  const handled = new Set<string>();
  let closing: Promise<void> | null = null;
  return {
    self: host.self,
    async publish(topic, message) {
      if (!closing) await topics.publish(topic, message);
    },
    subscribe: topics.subscribe,
    async request(peer, protocol, request, signal) {
      if (closing) return reject('aborted', 'the transport is closed');
      if (!directory.hasGreeted(peer)) return reject('unreachable', 'not connected');
      return await client.request(peer, protocol, request, signal);
    },
    handle(protocol, handler) {
      assert(!handled.has(protocol.id), `a handler for ${protocol.id} is already there`);
      handled.add(protocol.id);
      const serving = host.serve(protocol, handler).catch((error) => options.onError?.(error));
      return () => {
        handled.delete(protocol.id);
        void serving.then(() => host.stopServing(protocol)).catch((error) => options.onError?.(error));
      };
    },
    peers: directory.peers,
    onPeerChange: directory.onPeerChange,
    penalize: host.penalize,
    traffic: traffic.read,
    addresses: () => host.node.libp2p.getMultiaddrs().map(String),
    close() {
      closing ??= closeHost(host);
      return closing;
    },
  };
}

/** Whatever hangs, closing ends within `closeTimeoutMs`. */
async function closeHost(host: Host): Promise<void> {
  const { libp2p } = host.node;
  host.dialer.close();
  host.directory.close();
  host.client.close();
  for (const connection of libp2p.getConnections()) connection.abort(new Error('closing'));
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, closeTimeoutMs);
  });
  await Promise.race([Promise.resolve(libp2p.stop()).catch(() => undefined), timeout]);
  clearTimeout(timer);
}

async function dial(node: Libp2pNode, addresses: readonly Multiaddr[]): Promise<NodeId> {
  const connection = await node.libp2p.dial([...addresses], { signal: AbortSignal.timeout(dialTimeoutMs) });
  const peer = nodeOfPeer(connection.remotePeer);
  if (peer !== null) return peer;
  connection.abort(new Error('not a node'));
  throw new Error('not a node');
}

async function openStream(
  node: Libp2pNode,
  peerId: PeerId | undefined,
  wireId: string,
  signal: AbortSignal,
): Promise<Outcome<Stream>> {
  const connection = peerId && node.libp2p.getConnections(peerId).find((other) => other.status === 'open');
  if (!connection) return reject('unreachable', 'not connected');
  try {
    return accept(await connection.newStream(wireId, { signal, maxOutboundStreams: streamsPerProtocolMax }));
  } catch (error) {
    const name = error instanceof Error ? error.name : '';
    if (name === 'UnsupportedProtocolError') return reject('unknown-protocol', wireId);
    return signal.aborted ? reject('timeout') : reject('unreachable', name);
  }
}

async function describe(
  node: Libp2pNode,
  peerId: PeerId | undefined,
  localSwarm: boolean,
): Promise<Neighbour | null> {
  if (!peerId?.publicKey) return null;
  const known = await node.libp2p.peerStore.get(peerId).catch(() => null);
  const addresses = (known?.addresses ?? [])
    .map(({ multiaddr: address }) => address.decapsulateCode(CODE_P2P))
    .filter((address) => isLoopback(address) === localSwarm);
  return { publicKey: peerId.publicKey.raw, addresses: addresses.map((address) => address.bytes) };
}

/** Somebody's word about a node: what does not parse is left out. */
function addressesOf(neighbour: Neighbour): readonly Multiaddr[] {
  try {
    const peer = peerIdFromPublicKey(publicKeyFromRaw(neighbour.publicKey));
    return neighbour.addresses.map((bytes) => withPeer(multiaddr(bytes), peer));
  } catch {
    return [];
  }
}

function nodeOfPeer(peer: PeerId): NodeId | null {
  return peer.publicKey?.type === 'secp256k1' ? nodeIdOf(peer.publicKey.raw) : null;
}

function withPeer(address: Multiaddr, peer: PeerId): Multiaddr {
  return address.decapsulateCode(CODE_P2P).encapsulate(`/p2p/${peer.toString()}`);
}

/** The node behind `/p2p/…`, if the address says so and the key is one of ours. */
function nodeOfAddress(address: Multiaddr): NodeId | null {
  const peer = address.getComponents().findLast((component) => component.code === CODE_P2P)?.value;
  return peer === undefined ? null : nodeOfPeer(peerIdFromString(peer));
}

function parseAddress(text: string): Multiaddr {
  try {
    return multiaddr(text);
  } catch (error) {
    throw new CodedError('bad-address', `not a multiaddress: ${text}`, { cause: error });
  }
}

function listenError(error: unknown, listen: readonly string[]): CodedError {
  const text = error instanceof Error ? error.message : String(error);
  if (text.includes('EADDRINUSE')) {
    return new CodedError('port-in-use', `cannot listen on ${listen.join(', ')}: the port is in use`, {
      cause: error,
    });
  }
  const reason = text
    .split('\n')
    .filter((line) => line.trim() !== '')
    .at(-1)
    ?.trim();
  return new CodedError('listen-failed', `cannot listen on ${listen.join(', ')}: ${reason}`, {
    cause: error,
  });
}
