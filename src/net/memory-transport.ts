/**
 * The network in memory: a hub that joins many nodes in one process, with delay, loss, partitions and crashes, for
 * tests and the simulator. Everything happens on the given clock and randomness, so a seed replays exactly. It
 * keeps the limits and codes of the real transport; it does not know what the messages mean.
 */
import { assert, must } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { type Random, uniformBelow } from '../std/random.ts';
import { requestsInFlightMax, topicMessageBytesMax, topicMessagesPerMinuteMax } from './limits.ts';
import { createPeerScores, defaultScorePolicy, type PeerScores, type ScorePolicy } from './peer-score.ts';
import type { Protocol } from './protocol.ts';
import { createRateLimiter, type RateLimiter } from './rate-limit.ts';
import type { NodeId, RequestHandler, TopicHandler, Transport } from './transport.ts';

/** What becomes of one message on its way. */
export interface LinkVerdict {
  /** Until the last byte arrives. */
  readonly delayMs: number;
  /** A lost announcement never arrives; a lost request or response makes its caller see `stalled`. */
  readonly lost: boolean;
}

export interface MemoryHubOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** Judges every message. Without it: 1 to 5 ms, nothing lost. Messages of one link may overtake each other. */
  readonly link?: (from: NodeId, to: NodeId, bytes: number) => LinkVerdict;
  readonly scorePolicy?: ScorePolicy;
  /** A request handler threw: a bug. Without it the error is thrown from a timer of the clock. */
  readonly onError?: (node: NodeId, error: unknown) => void;
}

export interface MemoryHub {
  /** Connects a node to all others. A node that crashed or closed may join again under the same id. */
  join(nodeId: NodeId): Transport;
  /**
   * The node is gone at once, without a goodbye: what it sent but has not arrived is lost, requests to it end as
   * `unreachable`, its own transport is dead (requests `aborted`, publishes vanish).
   */
  crash(nodeId: NodeId): void;
  /** Only nodes of one group reach each other; nodes in no group reach nobody. Null: everybody reaches everybody. */
  partition(groups: readonly (readonly NodeId[])[] | null): void;
  /** Nodes that have joined and not left, sorted. */
  nodes(): readonly NodeId[];
}

/** Framing, encryption and multiplexing of one message, about as libp2p has it. */
const overheadBytes = 64;

interface Member {
  readonly id: NodeId;
  alive: boolean;
  /** Peers with the number of the connection: a message arrives only over the connection it was sent on. */
  readonly connected: Map<NodeId, number>;
  readonly subscriptions: Map<string, Set<{ readonly bytesMax: number; readonly handler: TopicHandler }>>;
  readonly handlers: Map<string, { readonly protocol: Protocol; readonly handler: RequestHandler }>;
  readonly listeners: Set<(peer: NodeId, connected: boolean) => void>;
  /** Requests this node has made and not finished. */
  readonly exchanges: Set<Exchange>;
  readonly scores: PeerScores;
  readonly rates: RateLimiter;
  bytesSent: number;
  bytesReceived: number;
}

/** One request on its way: `settle` ends it once and for all, whatever still travels. */
interface Exchange {
  readonly peer: NodeId;
  readonly protocol: Protocol;
  readonly connection: number;
  /** Aborts the handler at the other side. */
  readonly abort: AbortController;
  readonly settle: (outcome: Outcome<Uint8Array>) => void;
  /** Ends it as `stalled` unless it goes on within the idle time; cancels the previous such timer. */
  readonly expectProgress: () => void;
  settled: boolean;
}

interface Hub {
  readonly options: MemoryHubOptions;
  readonly members: Map<NodeId, Member>;
  /** Group of each node under the current partition; null without one. */
  groups: Map<NodeId, number> | null;
  connections: number;
}

export function createMemoryHub(options: MemoryHubOptions): MemoryHub {
  const hub: Hub = { options, members: new Map(), groups: null, connections: 0 };
  return {
    join: (nodeId) => transportOf(hub, joinHub(hub, nodeId)),
    crash(nodeId) {
      const member = hub.members.get(nodeId);
      if (member) leaveHub(hub, member);
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

function joinHub(hub: Hub, id: NodeId): Member {
  assert(!hub.members.has(id), `node ${id} has already joined`);
  const { clock, scorePolicy } = hub.options;
  const member: Member = {
    id,
    alive: true,
    connected: new Map(),
    subscriptions: new Map(),
    handlers: new Map(),
    listeners: new Set(),
    exchanges: new Set(),
    scores: createPeerScores(clock, scorePolicy),
    rates: createRateLimiter(clock),
    bytesSent: 0,
    bytesReceived: 0,
  };
  hub.members.set(id, member);
  for (const other of hub.members.values()) if (other !== member) reconcile(hub, member, other);
  return member;
}

function leaveHub(hub: Hub, member: Member): void {
  member.alive = false;
  hub.members.delete(member.id);
  for (const exchange of [...member.exchanges])
    exchange.settle(reject('aborted', 'this node has left the network'));
  for (const peer of [...member.connected.keys()])
    reconcile(hub, member, must(hub.members.get(peer), 'peer'));
  member.listeners.clear();
  member.subscriptions.clear();
  member.handlers.clear();
}

function mayConnect(hub: Hub, a: Member, b: Member): boolean {
  if (!a.alive || !b.alive) return false;
  if (a.scores.isRefused(b.id) || b.scores.isRefused(a.id)) return false;
  if (hub.groups === null) return true;
  const group = hub.groups.get(a.id);
  return group !== undefined && group === hub.groups.get(b.id);
}

/** Connects or disconnects two nodes as they now should be, and tells both. */
function reconcile(hub: Hub, a: Member, b: Member): void {
  const connect = mayConnect(hub, a, b);
  if (connect === a.connected.has(b.id)) return;
  for (const [member, peer] of [
    [a, b],
    [b, a],
  ] as const) {
    if (connect) member.connected.set(peer.id, hub.connections);
    else member.connected.delete(peer.id);
  }
  hub.connections += 1;
  for (const [member, peer] of [
    [a, b],
    [b, a],
  ] as const) {
    if (!connect) disconnectExchanges(member, peer.id);
    if (member.alive) for (const listener of [...member.listeners]) listener(peer.id, connect);
  }
}

function disconnectExchanges(member: Member, peer: NodeId): void {
  for (const exchange of [...member.exchanges]) {
    if (exchange.peer === peer) exchange.settle(reject('unreachable', 'the connection was lost'));
  }
}

function penalize(hub: Hub, member: Member, peer: NodeId, code: string): void {
  if (!member.alive || !member.scores.penalize(peer, code)) return;
  const other = hub.members.get(peer);
  if (other) reconcile(hub, member, other);
  const { refuseMs } = hub.options.scorePolicy ?? defaultScorePolicy;
  hub.options.clock.setTimer(refuseMs, () => {
    const again = hub.members.get(peer);
    if (again && member.alive) reconcile(hub, member, again);
  });
}

/** Puts a message on its way; `arrive` runs only if it is not lost and the connection still stands then. */
function send(hub: Hub, from: Member, to: Member, bytes: number, arrive: () => void): boolean {
  const { clock, random, link } = hub.options;
  const connection = from.connected.get(to.id);
  const size = bytes + overheadBytes;
  from.bytesSent += size;
  const verdict = link?.(from.id, to.id, size) ?? { delayMs: 1 + uniformBelow(random, 5), lost: false };
  if (verdict.lost) return false;
  clock.setTimer(verdict.delayMs, () => {
    if (connection === undefined || from.connected.get(to.id) !== connection) return;
    to.bytesReceived += size;
    arrive();
  });
  return true;
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

function request(
  hub: Hub,
  from: Member,
  peer: NodeId,
  protocol: Protocol,
  body: Uint8Array,
  signal: AbortSignal | undefined,
): Promise<Outcome<Uint8Array>> {
  if (!from.alive || signal?.aborted) return Promise.resolve(reject('aborted'));
  if (body.length > protocol.requestBytesMax) return Promise.resolve(reject('too-large', 'the request'));
  const inFlight = [...from.exchanges].filter(
    (other) => other.peer === peer && other.protocol.id === protocol.id,
  );
  if (inFlight.length >= requestsInFlightMax)
    return Promise.resolve(reject('refused', 'too many requests at once'));
  const connection = from.connected.get(peer);
  if (connection === undefined) return Promise.resolve(reject('unreachable', 'not connected'));
  const to = must(hub.members.get(peer), 'connected peer');
  return new Promise((resolve) => {
    const exchange = beginExchange(hub, from, { peer, protocol, connection, signal, resolve });
    exchange.expectProgress();
    const copy = body.slice();
    send(hub, from, to, copy.length, () => void answer(hub, from, to, exchange, copy));
  });
}

function beginExchange(
  hub: Hub,
  from: Member,
  start: Pick<Exchange, 'peer' | 'protocol' | 'connection'> & {
    readonly signal: AbortSignal | undefined;
    readonly resolve: (outcome: Outcome<Uint8Array>) => void;
  },
): Exchange {
  const { clock } = hub.options;
  const { peer, protocol, connection, signal, resolve } = start;
  // The deadline's timer is set first: at equal times `timeout` is said, as by the real transport.
  const cancelDeadline = clock.setTimer(protocol.timeoutMs, () => exchange.settle(reject('timeout')));
  let cancelIdle = () => {};
  const onAbort = () => exchange.settle(reject('aborted'));
  const exchange: Exchange = {
    peer,
    protocol,
    connection,
    abort: new AbortController(),
    settled: false,
    expectProgress() {
      cancelIdle();
      cancelIdle = clock.setTimer(protocol.idleTimeoutMs, () => exchange.settle(reject('stalled')));
    },
    settle(outcome) {
      if (exchange.settled) return;
      exchange.settled = true;
      cancelDeadline();
      cancelIdle();
      signal?.removeEventListener('abort', onAbort);
      from.exchanges.delete(exchange);
      exchange.abort.abort();
      resolve(outcome);
    },
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  from.exchanges.add(exchange);
  return exchange;
}

/** At the other side: the limits, then the handler, then the way back. */
async function answer(
  hub: Hub,
  from: Member,
  to: Member,
  exchange: Exchange,
  body: Uint8Array,
): Promise<void> {
  if (exchange.settled) return;
  exchange.expectProgress();
  const outcome = await serve(hub, from, to, exchange, body);
  if (exchange.settled || to.connected.get(from.id) !== exchange.connection) return;
  exchange.expectProgress();
  const bytes = outcome.ok ? outcome.value.length : outcome.code.length + outcome.detail.length;
  const copy = outcome.ok ? accept(outcome.value.slice()) : outcome;
  send(hub, to, from, bytes, () => {
    if (exchange.settled) return;
    const tooLarge = copy.ok && copy.value.length > exchange.protocol.responseBytesMax;
    exchange.settle(tooLarge ? reject('too-large', 'the response') : copy);
    if (tooLarge) penalize(hub, from, to.id, 'too-large');
  });
}

async function serve(
  hub: Hub,
  from: Member,
  to: Member,
  exchange: Exchange,
  body: Uint8Array,
): Promise<Outcome<Uint8Array>> {
  const entry = to.handlers.get(exchange.protocol.id);
  if (!entry) return reject('unknown-protocol', exchange.protocol.id);
  const { protocol, handler } = entry;
  const refusal = refusalOf(to, from.id, protocol, body.length);
  if (refusal) {
    penalize(hub, to, from.id, refusal.code);
    return refusal;
  }
  try {
    const outcome = await handler(from.id, body, exchange.abort.signal);
    if (outcome.ok && outcome.value.length > protocol.responseBytesMax)
      return reject('too-large', 'the response');
    return outcome;
  } catch (error) {
    reportBug(hub, to, error);
    return reject('failed');
  }
}

function refusalOf(to: Member, from: NodeId, protocol: Protocol, bytes: number): Rejection | null {
  const key = `${from} ${protocol.id}`;
  if (!to.rates.take(key, protocol.requestsPerMinuteMax)) return reject('refused', 'too many requests');
  if (bytes > protocol.requestBytesMax) return reject('too-large', 'the request');
  return null;
}

function reportBug(hub: Hub, member: Member, error: unknown): void {
  if (hub.options.onError) hub.options.onError(member.id, error);
  else
    hub.options.clock.setTimer(0, () => {
      throw error;
    });
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
    request: (peer, protocol, body, signal) => request(hub, member, peer, protocol, body, signal),
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
    penalize: (peer, code) => penalize(hub, member, peer, code),
    traffic: () => ({ bytesSent: member.bytesSent, bytesReceived: member.bytesReceived }),
    async close() {
      if (member.alive) leaveHub(hub, member);
    },
  };
}
