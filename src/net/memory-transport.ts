/**
 * The network in memory: a hub that joins many nodes in one process, with delay, rates, loss, partitions, stalls and
 * crashes, for tests and the simulator. Everything happens on the given clock and randomness, so a seed replays exactly.
 * It keeps the limits and codes of the real transport; it does not know what the messages mean.
 */
import { assert, must } from '../std/assert.ts';
import { sleep } from '../std/clock.ts';
import { providedMs, providersMax, topicMessageBytesMax, topicMessagesPerMinuteMax } from './limits.ts';
import {
  type Hub,
  joinHub,
  leaveHub,
  type Member,
  type MemoryHubOptions,
  penalize,
  reconcile,
  send,
} from './memory-hub.ts';
import { request } from './memory-requests.ts';
import type { NodeId, Transport } from './transport.ts';

export interface MemoryHub {
  /** Connects a node to all others. A node that crashed or closed may join again under the same id. */
  join(nodeId: NodeId): Transport;
  /**
   * The node is gone at once, without a goodbye: what it sent but has not arrived is lost, requests to it end as
   * `unreachable`, its own transport is dead (requests `aborted`, publishes vanish).
   */
  crash(nodeId: NodeId): void;
  /**
   * The node hangs without its connections breaking: what it sends and what is sent to it waits until it `resume`s.
   * Its timers are the clock's and run on; a node that shall do nothing either must be told so by whoever made it.
   */
  stall(nodeId: NodeId): void;
  resume(nodeId: NodeId): void;
  /** Only nodes of one group reach each other; nodes in no group reach nobody. Null: everybody reaches everybody. */
  partition(groups: readonly (readonly NodeId[])[] | null): void;
  /** Nodes that have joined and not left, sorted. */
  nodes(): readonly NodeId[];
}

export function createMemoryHub(options: MemoryHubOptions): MemoryHub {
  const hub: Hub = { options, members: new Map(), groups: null, connections: 0, provided: new Map() };
  return {
    join: (nodeId) => transportOf(hub, joinHub(hub, nodeId)),
    crash(nodeId) {
      const member = hub.members.get(nodeId);
      if (member) leaveHub(hub, member);
    },
    stall(nodeId) {
      const member = hub.members.get(nodeId);
      if (member) member.stalled ??= [];
    },
    resume(nodeId) {
      const member = hub.members.get(nodeId);
      const waiting = member?.stalled ?? [];
      if (member) member.stalled = null;
      for (const go of waiting) go();
    },
    partition(groups) {
      hub.groups =
        groups && new Map(groups.flatMap((group, index) => group.map((node) => [node, index] as const)));
      const members = [...hub.members.values()];
      for (const a of members) for (const b of members) if (a.id < b.id) reconcile(hub, a, b);
    },
    nodes: () => [...hub.members.keys()].sort(),
  };
}

function publish(hub: Hub, from: Member, topic: string, message: Uint8Array): void {
  if (message.length > topicMessageBytesMax) throw new RangeError(`announcement of ${message.length} bytes`);
  for (const peer of [...from.connected.keys()].sort()) {
    const to = must(hub.members.get(peer), 'connected peer');
    if (!to.subscriptions.has(topic)) continue;
    const copy = message.slice();
    send(hub, from, to, copy.length, () => deliver(hub, from, to, topic, copy));
  }
}

function deliver(hub: Hub, from: Member, to: Member, topic: string, message: Uint8Array): void {
  if (!to.rates.take(`${from.id} topics`, topicMessagesPerMinuteMax)) {
    penalize(hub, to, from.id, 'refused');
    return;
  }
  for (const { bytesMax, handler } of [...(to.subscriptions.get(topic) ?? [])]) {
    if (message.length > bytesMax) penalize(hub, to, from.id, 'too-large');
    else if (handler(from.id, message) === false) penalize(hub, to, from.id, 'invalid');
  }
}

/** A few hops of a lookup. */
const lookupMs = 20;

/** As a DHT whose records all can reach: of those who provide the key, who is connected. */
async function findProviders(hub: Hub, member: Member, key: string, signal?: AbortSignal): Promise<NodeId[]> {
  const { clock } = hub.options;
  await sleep(clock, lookupMs, signal).catch(() => {});
  if (signal?.aborted || !member.alive) return [];
  return [...(hub.provided.get(key) ?? [])]
    .filter(([node, untilMs]) => untilMs > clock.nowMs() && member.connected.has(node))
    .map(([node]) => node)
    .sort()
    .slice(0, providersMax);
}

function transportOf(hub: Hub, member: Member): Transport {
  return {
    self: member.id,
    async publish(topic, message) {
      publish(hub, member, topic, message);
    },
    subscribe(topic, bytesMax, handler) {
      const entry = { bytesMax, handler };
      const entries = member.subscriptions.get(topic) ?? new Set();
      member.subscriptions.set(topic, entries.add(entry));
      return () => {
        entries.delete(entry);
        if (entries.size === 0) member.subscriptions.delete(topic);
      };
    },
    request: (peer, protocol, body, signal, onFrame) =>
      request(hub, member, peer, protocol, body, signal, onFrame),
    handle(protocol, handler) {
      assert(!member.handlers.has(protocol.id), `a handler for ${protocol.id} is already there`);
      member.handlers.set(protocol.id, { protocol, handler });
      return () => void member.handlers.delete(protocol.id);
    },
    peers: () => [...member.connected.keys()].sort(),
    onPeerChange(listener) {
      member.listeners.add(listener);
      return () => void member.listeners.delete(listener);
    },
    async provide(key) {
      if (!member.alive) return;
      const nodes = hub.provided.get(key) ?? new Map<NodeId, number>();
      hub.provided.set(key, nodes.set(member.id, hub.options.clock.nowMs() + providedMs));
    },
    findProviders: (key, signal) => findProviders(hub, member, key, signal),
    roundTripMs: (peer) =>
      member.connected.has(peer) ? hub.options.roundTripMs?.(member.id, peer) : undefined,
    penalize: (peer, code) => penalize(hub, member, peer, code),
    traffic: () => ({ bytesSent: member.bytesSent, bytesReceived: member.bytesReceived }),
    async close() {
      if (member.alive) leaveHub(hub, member);
    },
  };
}
