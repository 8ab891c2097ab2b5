/**
 * A network of node processes on this machine whose connections are all links over the internet: a relay in front of each
 * node, whose port the node announces and the manifest names, so that nobody knows a way past it. Each connection has
 * the delay, the rate and the losses for itself. It starts no nodes and reads no events.
 */
import { type Cluster, type ClusterOptions, prepareCluster } from '../../src/cli/cluster.ts';
import { type LinkRelay, startLinkRelay } from './link-relay.ts';

export interface WanLink {
  /** Half of it on each way. */
  readonly rttMs: number;
  /** Each way, of each connection; without it as fast as loopback. */
  readonly bitsPerSecond?: number;
  /** Of segments, in [0, 1). */
  readonly loss?: number;
}

export interface RelayedCluster extends Cluster {
  /** In the order of `nodes`: each passes on what others dialled to that node. */
  readonly relays: readonly LinkRelay[];
  /** Breaks what is still connected. */
  closeRelays(): Promise<void>;
}

/** As `prepareCluster`; the relays run in this process from now on. */
export async function prepareRelayedCluster(
  options: Omit<ClusterOptions, 'reachedAt'>,
  { rttMs, bitsPerSecond, loss = 0 }: WanLink,
): Promise<RelayedCluster> {
  const way = { delayMs: rttMs / 2, loss, ...(bitsPerSecond !== undefined && { bitsPerSecond }) };
  const started: Promise<LinkRelay>[] = [];
  const reachedAt = async (targetPort: number) => {
    const relay = startLinkRelay({ targetPort, there: way, back: way });
    started.push(relay);
    return (await relay).port;
  };
  const closeRelays = async () => {
    await Promise.all(started.map(async (relay) => (await relay).close()));
  };
  try {
    const cluster = await prepareCluster({ ...options, reachedAt });
    return { ...cluster, relays: await Promise.all(started), closeRelays };
  } catch (error) {
    await closeRelays();
    throw error;
  }
}
