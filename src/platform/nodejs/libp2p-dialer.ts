/**
 * Keeps dialling: bootstrap addresses for ever, nodes one has heard of until they have failed too often, each with
 * growing pauses. It does not know how a connection is made or what makes a node a peer.
 */
import type { Multiaddr } from '@multiformats/multiaddr';
import type { NodeId } from '../../net/transport.ts';
import type { Clock } from '../../std/clock.ts';

export interface DialerOptions {
  readonly clock: Clock;
  /** Uniform in [0, 1): spreads the redials of many nodes. */
  readonly uniform: () => number;
  readonly pauseMsMin: number;
  readonly pauseMsMax: number;
  /** The node reached; throws when nobody was. */
  readonly dial: (addresses: readonly Multiaddr[]) => Promise<NodeId>;
  readonly isConnected: (node: NodeId) => boolean;
}

export interface Dialer {
  /** Never given up. The node behind the address may be unknown until it is reached. */
  addBootstrap(address: Multiaddr, node: NodeId | null): void;
  /** Dials in `delayMs` unless connected by then. */
  addNode(node: NodeId, addresses: readonly Multiaddr[], delayMs: number): void;
  connected(node: NodeId): void;
  disconnected(node: NodeId): void;
  close(): void;
}

interface Target {
  /** The bootstrap address, or the node. */
  readonly key: string;
  addresses: readonly Multiaddr[];
  node: NodeId | null;
  readonly isBootstrap: boolean;
  failures: number;
  isDialling: boolean;
  cancel: (() => void) | null;
}

const failuresMax = 10;
const targetsMax = 256;

interface Dialling {
  readonly options: DialerOptions;
  readonly targets: Map<string, Target>;
  closed: boolean;
}

export function createDialer(options: DialerOptions): Dialer {
  const targets = new Map<string, Target>();
  const d: Dialling = { options, targets, closed: false };
  const targetsOf = (node: NodeId) => [...targets.values()].filter((target) => target.node === node);
  return {
    addBootstrap(address, node) {
      const key = address.toString();
      if (targets.has(key)) return;
      add(d, { key, addresses: [address], node, isBootstrap: true }, 0);
    },
    addNode(node, addresses, delayMs) {
      if (addresses.length === 0) return;
      const known = targets.get(node);
      if (known) known.addresses = addresses;
      if (known || targets.size >= targetsMax) return;
      add(d, { key: node, addresses, node, isBootstrap: false }, delayMs);
    },
    connected(node) {
      for (const target of targetsOf(node)) {
        target.failures = 0;
        target.cancel?.();
        target.cancel = null;
      }
    },
    disconnected(node) {
      for (const target of targetsOf(node)) schedule(d, target, pauseMs(options, target.failures));
    },
    close() {
      d.closed = true;
      for (const target of targets.values()) target.cancel?.();
      targets.clear();
    },
  };
}

function add(
  d: Dialling,
  known: Pick<Target, 'key' | 'addresses' | 'node' | 'isBootstrap'>,
  delayMs: number,
): void {
  const target: Target = { ...known, failures: 0, isDialling: false, cancel: null };
  d.targets.set(target.key, target);
  schedule(d, target, delayMs);
}

function schedule(d: Dialling, target: Target, delayMs: number): void {
  if (d.closed || target.isDialling || d.targets.get(target.key) !== target) return;
  target.cancel?.();
  target.cancel = d.options.clock.setTimer(delayMs, () => {
    target.cancel = null;
    void attempt(d, target);
  });
}

async function attempt(d: Dialling, target: Target): Promise<void> {
  const { isConnected, dial } = d.options;
  if (d.closed || (target.node !== null && isConnected(target.node))) return;
  target.isDialling = true;
  try {
    target.node = await dial(target.addresses);
  } catch {
    // Unreachable now; the pause grows.
  }
  target.isDialling = false;
  target.failures += 1;
  if (!target.isBootstrap && target.failures > failuresMax) d.targets.delete(target.key);
  // Even a dial that succeeded is looked at again: the node may not become a peer, or leave before anybody notices.
  else schedule(d, target, pauseMs(d.options, target.failures));
}

function pauseMs({ pauseMsMin, pauseMsMax, uniform }: DialerOptions, failures: number): number {
  const grown = pauseMsMin * 2 ** Math.min(failures, 16);
  return Math.min(grown, pauseMsMax) * (0.75 + 0.5 * uniform());
}
