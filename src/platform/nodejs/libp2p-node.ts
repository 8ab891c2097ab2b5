/**
 * The libp2p node of a network member: transports, encryption, multiplexing and services, tuned so that an idle
 * connection is silent. It knows libp2p's options and nothing of our protocols.
 */
import { autoNAT } from '@libp2p/autonat';
import { circuitRelayServer, circuitRelayTransport } from '@libp2p/circuit-relay-v2';
import { privateKeyFromRaw } from '@libp2p/crypto/keys';
import { dcutr } from '@libp2p/dcutr';
import { type GossipSub, gossipsub } from '@libp2p/gossipsub';
import { identify, identifyPush } from '@libp2p/identify';
import type { Libp2p, Metrics, PeerId } from '@libp2p/interface';
import { kadDHT } from '@libp2p/kad-dht';
import { mdns } from '@libp2p/mdns';
import { ping } from '@libp2p/ping';
import { tcp } from '@libp2p/tcp';
import { uPnPNAT } from '@libp2p/upnp-nat';
import { webSockets } from '@libp2p/websockets';
import { yamux } from '@libp2p/yamux';
import { createLibp2p } from 'libp2p';
import { providedMs } from '../../net/limits.ts';
import { isLoopback } from './libp2p-address.ts';
import { patientNoise } from './libp2p-noise.ts';
import { gossipOptions } from './libp2p-topics.ts';

export interface Libp2pNodeOptions {
  readonly secretKey: Uint8Array;
  readonly listen: readonly string[];
  /** What others are told instead, where the port is reached through another. */
  readonly announce: readonly string[];
  /** Between `/neuroshard/` and the protocol's name. */
  readonly networkPrefix: string;
  readonly mdns: boolean;
  readonly upnp: boolean;
  /** Many nodes on one machine: loopback only, no discovery beyond greetings, no limits by address. */
  readonly localSwarm: boolean;
  /** Takes part in the network's DHT. */
  readonly dht: boolean;
  readonly relayServer: boolean;
  readonly relayClient: boolean;
  readonly connectionsMax: number;
  readonly metrics: Metrics;
  readonly isRefused: (peer: PeerId) => boolean;
}

export interface Libp2pNode {
  readonly libp2p: Libp2p;
  readonly gossip: GossipSub;
}

const MiB = 1024 * 1024;
const minuteMs = 60_000;
const windowBytesMax = MiB;

/** Built, not started. */
export async function createLibp2pNode(options: Libp2pNodeOptions): Promise<Libp2pNode> {
  const { localSwarm } = options;
  // Dead connections are found by TCP's own probes, which carry no bytes; nothing else is sent on an idle one.
  const socketOptions = { keepAlive: true, keepAliveInitialDelay: 20_000, noDelay: true };
  const libp2p = await createLibp2p({
    start: false,
    privateKey: privateKeyFromRaw(options.secretKey),
    nodeInfo: { name: 'neuroshard', version: '1', userAgent: 'neuroshard/1' },
    metrics: () => options.metrics,
    addresses: {
      listen: [...options.listen, ...(options.relayClient ? ['/p2p-circuit'] : [])],
      announce: [...options.announce],
    },
    transports: [
      tcp({
        ...socketOptions,
        inboundSocketInactivityTimeout: 0,
        outboundSocketInactivityTimeout: 0,
        dialOpts: socketOptions,
      }),
      webSockets(),
      circuitRelayTransport(),
    ],
    connectionEncrypters: [patientNoise()],
    streamMuxers: [
      yamux({
        // The ping at the start measures the round trip that lets windows grow; later ones are rare.
        enableKeepAlive: true,
        keepAliveInterval: 10 * minuteMs,
        streamOptions: {
          maxStreamWindowSize: windowBytesMax,
          // A paused stream must hold what the peer may still send.
          maxReadBufferLength: windowBytesMax + MiB,
        },
      }),
    ],
    connectionGater: {
      denyDialMultiaddr: (address) => localSwarm && !isLoopback(address),
      denyDialPeer: options.isRefused,
      denyInboundEncryptedConnection: options.isRefused,
      denyOutboundEncryptedConnection: options.isRefused,
    },
    connectionManager: {
      maxConnections: options.connectionsMax,
      // We redial ourselves, with our own clock and bounds.
      reconnectRetries: 0,
      ...(localSwarm ? { inboundConnectionThreshold: 1000, maxIncomingPendingConnections: 100 } : {}),
    },
    connectionMonitor: { enabled: false },
    peerDiscovery: options.mdns ? [mdns({ serviceTag: `neuroshard-${options.networkPrefix}` })] : [],
    services: {
      identify: identify(),
      ping: ping(),
      gossip: gossipsub(gossipOptions(localSwarm)),
      ...(options.dht ? { dht: dhtService(options) } : {}),
      ...(localSwarm ? {} : wideAreaServices()),
      ...(options.upnp ? { upnp: uPnPNAT() } : {}),
      ...(options.relayServer
        ? { relay: circuitRelayServer({ reservations: { applyDefaultLimit: false } }) }
        : {}),
    },
  });
  return { libp2p, gossip: libp2p.services.gossip as GossipSub };
}

/** Records of providers go soon after their node has: whoever still is one says so again. */
function dhtService({ networkPrefix, localSwarm }: Libp2pNodeOptions) {
  return kadDHT({
    protocol: `/neuroshard/${networkPrefix}/kad/1`,
    querySelfInterval: 30 * minuteMs,
    clientMode: false,
    reprovide: { validity: providedMs, interval: 5 * minuteMs, threshold: 0 },
    // A network may be one of private addresses: the same ones as in greetings are told.
    peerInfoMapper: (peer) => ({
      ...peer,
      multiaddrs: peer.multiaddrs.filter((address) => isLoopback(address) === localSwarm),
    }),
  });
}

function wideAreaServices() {
  return {
    identifyPush: identifyPush(),
    autoNAT: autoNAT({ refreshInterval: 60 * minuteMs }),
    dcutr: dcutr(),
  };
}
