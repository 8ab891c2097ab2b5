/**
 * The nodes of the in-memory network and the way of one message between two of them: who is connected, who is gone,
 * who hangs, what arrives when. It does not know what the messages are.
 */
import { assert, must } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import { type Outcome, reject } from '../std/outcome.ts';
import { type Random, uniformBelow } from '../std/random.ts';
import { type ByteBudget, createByteBudget } from './byte-budget.ts';
import { requestBytesHeldMax, requestBytesHeldTotalMax } from './limits.ts';
import { createLinkState, departureMs, type LinkState, type LinkVerdict } from './memory-link.ts';
import { createPeerScores, defaultScorePolicy, type PeerScores, type ScorePolicy } from './peer-score.ts';
import type { Protocol } from './protocol.ts';
import { createRateLimiter, type RateLimiter } from './rate-limit.ts';
import type { NodeId, RequestHandler, TopicHandler } from './transport.ts';

export interface MemoryHubOptions {
  readonly clock: Clock;
  readonly random: Random;
  /**
   * Judges every message. Without it: 1 to 5 ms, nothing lost, no rate. Messages of one link may overtake each other,
   * those of one call and direction may not.
   */
  readonly link?: (from: NodeId, to: NodeId, bytes: number) => LinkVerdict;
  /** What a measurement of the link gives; unknown without it. */
  readonly roundTripMs?: (from: NodeId, to: NodeId) => number;
  readonly scorePolicy?: ScorePolicy;
  /** A request handler threw: a bug. Without it the error is thrown from a timer of the clock. */
  readonly onError?: (node: NodeId, error: unknown) => void;
}

/** Framing, encryption and multiplexing of one message, about as libp2p has it. */
const overheadBytes = 64;

export interface Member {
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
  /** Requests being worked on. */
  readonly held: ByteBudget;
  /** To each peer. */
  readonly links: Map<NodeId, LinkState>;
  /** What waits while the node is stalled, in order; null when it is not. */
  stalled: (() => void)[] | null;
  bytesSent: number;
  bytesReceived: number;
}

/** One request on its way: `settle` ends it once and for all, whatever still travels. */
export interface Exchange {
  readonly peer: NodeId;
  readonly protocol: Protocol;
  readonly connection: number;
  /** Aborts the handler at the other side. */
  readonly abort: AbortController;
  readonly onFrame: ((frame: Uint8Array) => void) | undefined;
  readonly beganAtMs: number;
  readonly settle: (outcome: Outcome<Uint8Array>) => void;
  /** Ends it as `stalled` unless it goes on within the idle time from `fromMs` on; cancels the previous such timer. */
  readonly expectProgress: (fromMs: number) => void;
  /** Of what comes back. */
  readonly order: Order;
  /** Frames sent back. */
  frames: number;
  /** The handler has ended. */
  isAnswered: boolean;
  settled: boolean;
}

export interface Hub {
  readonly options: MemoryHubOptions;
  readonly members: Map<NodeId, Member>;
  /** Group of each node under the current partition; null without one. */
  groups: Map<NodeId, number> | null;
  connections: number;
  /** By key, who provides it and until when: what the nodes of a DHT keep together. */
  readonly provided: Map<string, Map<NodeId, number>>;
}

export function joinHub(hub: Hub, id: NodeId): Member {
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
    held: createByteBudget(requestBytesHeldMax, requestBytesHeldTotalMax),
    links: new Map(),
    stalled: null,
    bytesSent: 0,
    bytesReceived: 0,
  };
  hub.members.set(id, member);
  for (const other of hub.members.values()) if (other !== member) reconcile(hub, member, other);
  return member;
}

export function leaveHub(hub: Hub, member: Member): void {
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
export function reconcile(hub: Hub, a: Member, b: Member): void {
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

export function penalize(hub: Hub, member: Member, peer: NodeId, code: string): void {
  if (!member.alive || !member.scores.penalize(peer, code)) return;
  const other = hub.members.get(peer);
  if (other) reconcile(hub, member, other);
  const { refuseMs } = hub.options.scorePolicy ?? defaultScorePolicy;
  hub.options.clock.setTimer(refuseMs, () => {
    const again = hub.members.get(peer);
    if (again && member.alive) reconcile(hub, member, again);
  });
}

/** What a message's way is like; everything here may be left out. */
interface Way {
  /** Not before what went the same way before it. */
  readonly order?: Order;
  /** It is sent again until it arrives. */
  readonly isSure?: boolean;
}

/** When the last message of those that may not overtake each other arrives. */
interface Order {
  lastArrivalMs: number;
}

/**
 * Puts a message on its way; `arrive` runs only if it is not lost and the connection still stands then. Returns when its
 * last byte has left, as far as can be told.
 */
export function send(
  hub: Hub,
  from: Member,
  to: Member,
  bytes: number,
  arrive: () => void,
  way: Way = {},
): number {
  const { clock, random, link } = hub.options;
  const connection = from.connected.get(to.id);
  const stands = () => connection !== undefined && from.connected.get(to.id) === connection;
  const size = bytes + overheadBytes;
  const reach = () => {
    if (!stands()) return;
    if (to.stalled) {
      to.stalled.push(reach);
      return;
    }
    to.bytesReceived += size;
    arrive();
  };
  const leave = (): number => {
    const nowMs = clock.nowMs();
    from.bytesSent += size;
    const verdict = link?.(from.id, to.id, size) ?? { delayMs: 1 + uniformBelow(random, 5), lost: false };
    const state = from.links.get(to.id) ?? createLinkState();
    from.links.set(to.id, state);
    const leftAtMs = departureMs(state, nowMs, size, verdict.bytesPerSecond);
    if (verdict.lost && !way.isSure) return nowMs;
    const arrivesAtMs = Math.max(leftAtMs + verdict.delayMs, way.order?.lastArrivalMs ?? 0);
    if (way.order) way.order.lastArrivalMs = arrivesAtMs;
    clock.setTimer(arrivesAtMs - nowMs, reach);
    return leftAtMs;
  };
  if (!from.stalled) return leave();
  from.stalled.push(() => {
    if (stands()) leave();
  });
  return clock.nowMs();
}

export function reportBug(hub: Hub, member: Member, error: unknown): void {
  if (hub.options.onError) hub.options.onError(member.id, error);
  else
    hub.options.clock.setTimer(0, () => {
      throw error;
    });
}
