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
  addresses: readonly Multiaddr[];
  node: NodeId | null;
  readonly isBootstrap: boolean;
  failures: number;
  isDialling: boolean;
  cancel: (() => void) | null;
}

const failuresMax = 10;
const targetsMax = 256;

export function createDialer(options: DialerOptions): Dialer {
  const { clock } = options;
  const targets = new Map<string, Target>();
  let closed = false;

  function pauseMs(failures: number): number {
    const grown = options.pauseMsMin * 2 ** Math.min(failures, 16);
    return Math.min(grown, options.pauseMsMax) * (0.75 + 0.5 * options.uniform());
  }

  function schedule(key: string, target: Target, delayMs: number): void {
    if (closed || target.isDialling || targets.get(key) !== target) return;
    target.cancel?.();
    target.cancel = clock.setTimer(delayMs, () => {
      target.cancel = null;
      void attempt(key, target);
    });
  }

  async function attempt(key: string, target: Target): Promise<void> {
    if (closed || (target.node !== null && options.isConnected(target.node))) return;
    target.isDialling = true;
    try {
      target.node = await options.dial(target.addresses);
    } catch {
      // Unreachable now; the pause grows.
    }
    target.isDialling = false;
    target.failures += 1;
    if (!target.isBootstrap && target.failures > failuresMax) targets.delete(key);
    // Even a dial that succeeded is looked at again: the node may not become a peer, or leave before anybody notices.
    else schedule(key, target, pauseMs(target.failures));
  }

  const targetsOf = (node: NodeId) => [...targets].filter(([, target]) => target.node === node);

  return {
    addBootstrap(address, node) {
      const key = address.toString();
      if (targets.has(key)) return;
      const target = {
        addresses: [address],
        node,
        isBootstrap: true,
        failures: 0,
        isDialling: false,
        cancel: null,
      };
      targets.set(key, target);
      schedule(key, target, 0);
    },
    addNode(node, addresses, delayMs) {
      if (addresses.length === 0) return;
      const known = targets.get(node);
      if (known) known.addresses = addresses;
      if (known || targets.size >= targetsMax) return;
      const target = { addresses, node, isBootstrap: false, failures: 0, isDialling: false, cancel: null };
      targets.set(node, target);
      schedule(node, target, delayMs);
    },
    connected(node) {
      for (const [, target] of targetsOf(node)) {
        target.failures = 0;
        target.cancel?.();
        target.cancel = null;
      }
    },
    disconnected(node) {
      for (const [key, target] of targetsOf(node)) schedule(key, target, pauseMs(target.failures));
    },
    close() {
      closed = true;
      for (const target of targets.values()) target.cancel?.();
      targets.clear();
    },
  };
}
