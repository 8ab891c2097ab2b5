/**
 * The real network: `Transport` over libp2p. This file joins the parts (node, connections, greetings, dialling,
 * requests, topics, traffic) and owns their lifetime; each part is beside it in a file of its own.
 */
import { randomInt } from 'node:crypto';
import type { Connection, Stream } from '@libp2p/interface';
import type { KeyPair } from '../../identity/keys.ts';
import { createPeerScores, type PeerScores, type ScorePolicy } from '../../net/peer-score.ts';
import type { Protocol } from '../../net/protocol.ts';
import { createRateLimiter, type RateLimiter } from '../../net/rate-limit.ts';
import type { NodeId, RequestHandler, Transport } from '../../net/transport.ts';
import { assert } from '../../std/assert.ts';
import { toHex, utf8 } from '../../std/bytes.ts';
import type { Clock } from '../../std/clock.ts';
import { sha256 } from '../../std/hash.ts';
import { CodedError, reject } from '../../std/outcome.ts';
import { addressesOf, nodeOfAddress, nodeOfPeer, parseAddress, withPeer } from './libp2p-address.ts';
import { createRequestClient, type RequestClient } from './libp2p-client.ts';
import { type Connections, createConnections } from './libp2p-connections.ts';
import { createDialer, type Dialer } from './libp2p-dialer.ts';
import { helloProtocol } from './libp2p-hello.ts';
import { createLibp2pNode, type Libp2pNode } from './libp2p-node.ts';
import { createPeerDirectory, type PeerDirectory } from './libp2p-peers.ts';
import { createProviders, type Providers } from './libp2p-providers.ts';
import { measureRoundTrips, type RoundTrips } from './libp2p-round-trips.ts';
import { createRequestServer, inboundStreamsMax, type RequestServer } from './libp2p-server.ts';
import { createTopics, type Topics } from './libp2p-topics.ts';
import { createTrafficMeter, type TrafficMeter } from './libp2p-traffic.ts';

export interface Libp2pTransportOptions {
  readonly key: KeyPair;
  /** Multiaddresses, e.g. `/ip4/127.0.0.1/tcp/0`. */
  readonly listen: readonly string[];
  /** Multiaddresses that others are told, where they reach `listen` through a port of something else. */
  readonly announce?: readonly string[];
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
  /** Takes part in the network's DHT, by which providers are found. On, but off in a local swarm, unless given. */
  readonly dht?: boolean;
  /** So many peers are gathered by others' introduction; 24 unless given. */
  readonly peersWanted?: number;
  readonly scorePolicy?: ScorePolicy;
  /** A handler of ours threw. */
  readonly onError?: (error: unknown) => void;
}

export interface Libp2pTransport extends Transport {
  /** Where others reach this node, each with `/p2p/…`, ready to be a bootstrap address. */
  addresses(): readonly string[];
}

const closeTimeoutMs = 3_000;
/** How often each peer's gossip stream is looked at. */
const gossipCheckMs = 5_000;
/** No more nodes are dialled on others' introduction from so many peers on. */
const peersWantedDefault = 24;

/** The parts of one node. */
interface Host {
  readonly options: Libp2pTransportOptions;
  readonly self: NodeId;
  readonly networkPrefix: string;
  readonly node: Libp2pNode;
  readonly scores: PeerScores;
  readonly rates: RateLimiter;
  readonly traffic: TrafficMeter;
  readonly connections: Connections;
  readonly client: RequestClient;
  readonly server: RequestServer;
  readonly dialer: Dialer;
  readonly directory: PeerDirectory;
  readonly topics: Topics;
  readonly providers: Providers;
  readonly roundTrips: RoundTrips;
  /** By protocol id: ends of the streams being served. */
  readonly serving: Map<string, Set<() => void>>;
  readonly penalize: (peer: NodeId, code: string) => void;
  readonly onError: (error: unknown) => void;
  isClosed: boolean;
}

/** Starts listening and dialling. Throws `CodedError`: `bad-address`, `port-in-use`, `listen-failed`. */
export async function createLibp2pTransport(options: Libp2pTransportOptions): Promise<Libp2pTransport> {
  const bootstrap = options.bootstrap.map(parseAddress);
  for (const address of [...options.listen, ...(options.announce ?? [])]) parseAddress(address);
  const host = await createHost(options);
  await startHost(host);
  for (const address of bootstrap) host.dialer.addBootstrap(address, nodeOfAddress(address));
  return transportOf(host);
}

async function createHost(options: Libp2pTransportOptions): Promise<Host> {
  const { clock, localSwarm = false } = options;
  const networkPrefix = toHex(sha256(utf8(options.networkId)).subarray(0, 4));
  const scores = createPeerScores(clock, options.scorePolicy);
  const rates = createRateLimiter(clock);
  const traffic = createTrafficMeter();
  const node = await createNode(options, networkPrefix, scores, traffic);
  const streamsMax = inboundStreamsMax;
  const connections = createConnections({ libp2p: node.libp2p, clock, localSwarm, streamsMax });
  const onError = options.onError ?? (() => {});
  let offences = 0;
  const penalize = (peer: NodeId, code: string) => {
    offences += 1;
    if (scores.penalize(peer, code)) connections.hangUp(peer);
  };
  const client = createRequestClient({
    clock,
    penalize,
    openStream: (peer, protocol, signal) =>
      connections.openStream(peer, wireId(networkPrefix, protocol), signal),
  });
  const { dialer, directory } = createAcquaintance(options, scores, connections, client, penalize);
  const topics = createTopics({
    gossip: node.gossip,
    prefix: `${networkPrefix}/`,
    rates,
    nodeOf(peer) {
      const id = nodeOfPeer(peer);
      return id !== null && directory.hasGreeted(id) ? id : null;
    },
    isFullMesh: directory.isFullMesh,
    penalize,
    offences: () => offences,
  });
  const providers = createProviders({
    libp2p: node.libp2p,
    networkPrefix,
    self: options.key.nodeId,
    localSwarm,
    dial: connections.dial,
    isPeer: (peer) => directory.peers().includes(peer),
    onPeerChange: directory.onPeerChange,
    isRefused: scores.isRefused,
  });
  return {
    options,
    self: options.key.nodeId,
    networkPrefix,
    node,
    scores,
    rates,
    traffic,
    connections,
    client,
    server: createRequestServer({ clock, rates, penalize, onError }),
    dialer,
    directory,
    topics,
    providers,
    roundTrips: measureRoundTrips({ clock, ping: connections.ping, onPeerChange: directory.onPeerChange }),
    serving: new Map(),
    penalize,
    onError,
    isClosed: false,
  };
}

function createNode(
  options: Libp2pTransportOptions,
  networkPrefix: string,
  scores: PeerScores,
  traffic: TrafficMeter,
): Promise<Libp2pNode> {
  return createLibp2pNode({
    secretKey: options.key.secretKey,
    listen: options.listen,
    announce: options.announce ?? [],
    networkPrefix,
    mdns: options.mdns ?? false,
    upnp: options.upnp ?? false,
    localSwarm: options.localSwarm ?? false,
    dht: options.dht ?? !options.localSwarm,
    relayServer: options.relay?.server ?? false,
    relayClient: options.relay?.client ?? false,
    connectionsMax: options.connectionsMax ?? 64,
    metrics: traffic.metrics,
    isRefused(peer) {
      const id = nodeOfPeer(peer);
      return id !== null && scores.isRefused(id);
    },
  });
}

/** Whom we know and whom we dial: each tells the other. */
function createAcquaintance(
  options: Libp2pTransportOptions,
  scores: PeerScores,
  connections: Connections,
  client: RequestClient,
  penalize: (peer: NodeId, code: string) => void,
): { readonly dialer: Dialer; readonly directory: PeerDirectory } {
  const { clock, localSwarm, peersWanted = peersWantedDefault } = options;
  const self = options.key.nodeId;
  const dialer = createDialer({
    clock,
    uniform: () => randomInt(2 ** 32) / 2 ** 32,
    pauseMsMin: localSwarm ? 100 : 500,
    pauseMsMax: localSwarm ? 2_000 : 60_000,
    dial: connections.dial,
    isConnected: (peer) => directory.hasGreeted(peer),
  });
  const directory: PeerDirectory = createPeerDirectory({
    clock,
    self,
    networkId: options.networkId,
    exchangeHello: (peer, hello) => client.request(peer, helloProtocol, hello),
    describe: connections.describe,
    onIntroduction(peer, neighbour) {
      if (directory.peers().length >= peersWanted || scores.isRefused(peer)) return;
      // Both are told of each other: the lower id dials, the other only if that has not worked.
      dialer.addNode(peer, addressesOf(neighbour), self < peer ? 0 : 1_500);
    },
    hangUp: connections.hangUp,
    penalize,
  });
  return { dialer, directory };
}

/** Networks never answer each other: the prefix is in every protocol's name. */
function wireId(networkPrefix: string, protocol: Protocol): string {
  return protocol.id.replace('/neuroshard/', `/neuroshard/${networkPrefix}/`);
}

async function startHost(host: Host): Promise<void> {
  const { node, directory, dialer } = host;
  const { libp2p } = node;
  listenToNode(host);
  directory.onPeerChange((peer, connected) => {
    if (connected) dialer.connected(peer);
  });
  await libp2p.register(wireId(host.networkPrefix, helloProtocol), {
    onConnect(peerId, connection) {
      const peer = nodeOfPeer(peerId);
      if (peer !== null) directory.connected(peer, connection.direction === 'outbound');
    },
  });
  await serve(host, helloProtocol, directory.answerHello);
  try {
    await libp2p.start();
  } catch (error) {
    await closeHost(host);
    throw listenError(error, host.options.listen);
  }
  // A topic that everybody has: its subscription tells that a peer's subscriptions have arrived.
  host.topics.subscribe('', 0, () => false);
  watchGossip(host);
}

function listenToNode(host: Host): void {
  const { node, directory, dialer, self } = host;
  const { peersWanted = peersWantedDefault } = host.options;
  const { libp2p, gossip } = node;
  libp2p.addEventListener('peer:disconnect', (event) => {
    const peer = nodeOfPeer(event.detail);
    if (peer === null) return;
    directory.disconnected(peer);
    dialer.disconnected(peer);
  });
  libp2p.addEventListener('connection:close', (event) => {
    const peer = nodeOfPeer(event.detail.remotePeer);
    if (peer !== null && directory.hasGreeted(peer)) restoreGossip(host, peer);
  });
  libp2p.addEventListener('peer:discovery', (event) => {
    const { id, multiaddrs } = event.detail;
    const peer = nodeOfPeer(id);
    if (peer === null || peer === self || directory.peers().length >= peersWanted) return;
    const addresses = multiaddrs.map((address) => withPeer(address, id));
    dialer.addNode(peer, addresses, self < peer ? 500 : 2_000);
  });
  gossip.addEventListener('subscription-change', (event) => {
    const { peerId } = event.detail;
    const peer = nodeOfPeer(peerId);
    if (peer !== null && libp2p.getConnections(peerId).length > 0) directory.subscriptionsKnown(peer);
  });
}

/** Gossipsub opens its stream once for each peer; when it is lost and the peer is not, it must be told to do so again. */
function restoreGossip(host: Host, peer: NodeId): void {
  const connection = host.connections.newest(peer);
  if (connection && !host.topics.canSend(peer)) host.topics.openStream(connection);
}

function watchGossip(host: Host): void {
  host.options.clock.setTimer(gossipCheckMs, () => {
    if (host.isClosed) return;
    for (const peer of host.directory.peers()) restoreGossip(host, peer);
    watchGossip(host);
  });
}

async function serve(host: Host, protocol: Protocol, handler: RequestHandler): Promise<void> {
  const open = new Set<() => void>();
  host.serving.set(protocol.id, open);
  const onStream = (stream: Stream, connection: Connection) => {
    const peer = nodeOfPeer(connection.remotePeer);
    // Who has not greeted us may only greet.
    if (peer === null || (protocol !== helloProtocol && !host.directory.hasGreeted(peer))) {
      stream.abort(new Error('not a peer'));
      return;
    }
    const end = host.server.serve(stream, peer, protocol, handler);
    open.add(end);
    stream.addEventListener('close', () => open.delete(end));
  };
  await host.node.libp2p.handle(wireId(host.networkPrefix, protocol), onStream, {
    maxInboundStreams: inboundStreamsMax,
  });
}

async function stopServing(host: Host, protocol: Protocol): Promise<void> {
  for (const end of host.serving.get(protocol.id) ?? []) end();
  host.serving.delete(protocol.id);
  await host.node.libp2p.unhandle(wireId(host.networkPrefix, protocol));
}

function transportOf(host: Host): Libp2pTransport {
  const { directory, client, topics, traffic, onError } = host;
  const handled = new Set<string>();
  let closing: Promise<void> | null = null;
  return {
    self: host.self,
    async publish(topic, message) {
      if (!host.isClosed) await topics.publish(topic, message);
    },
    subscribe: topics.subscribe,
    async request(peer, protocol, request, signal, onFrame) {
      if (host.isClosed) return reject('aborted', 'the transport is closed');
      if (!directory.hasGreeted(peer)) return reject('unreachable', 'not connected');
      return await client.request(peer, protocol, request, signal, onFrame);
    },
    handle(protocol, handler) {
      assert(!handled.has(protocol.id), `a handler for ${protocol.id} is already there`);
      handled.add(protocol.id);
      const serving = serve(host, protocol, handler).catch(onError);
      return () => {
        handled.delete(protocol.id);
        void serving.then(() => stopServing(host, protocol)).catch(onError);
      };
    },
    peers: directory.peers,
    onPeerChange: directory.onPeerChange,
    provide: host.providers.provide,
    findProviders: host.providers.find,
    roundTripMs: host.roundTrips.of,
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
  host.isClosed = true;
  host.dialer.close();
  host.directory.close();
  host.client.close();
  host.providers.close();
  host.roundTrips.close();
  for (const connection of libp2p.getConnections()) connection.abort(new Error('closing'));
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, closeTimeoutMs);
  });
  await Promise.race([Promise.resolve(libp2p.stop()).catch(() => undefined), timeout]);
  clearTimeout(timer);
}

function listenError(error: unknown, listen: readonly string[]): CodedError {
  const text = error instanceof Error ? error.message : String(error);
  const where = listen.join(', ');
  if (text.includes('EADDRINUSE')) {
    return new CodedError('port-in-use', `cannot listen on ${where}: the port is in use`, { cause: error });
  }
  const reason = text
    .split('\n')
    .findLast((line) => line.trim() !== '')
    ?.trim();
  return new CodedError('listen-failed', `cannot listen on ${where}: ${reason}`, { cause: error });
}
