/**
 * Which replica of the next stage to use: ranked by when it is expected to have finished, the better of two random ones
 * among the best. It remembers what was observed of each node and asks nobody.
 * Source of the choice: Mitzenmacher, The Power of Two Choices in Randomized Load Balancing (2001).
 */
import type { NodeId } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { type Random, uniformBelow } from '../std/random.ts';

export interface Observation {
  /** From the callee's first sign of life to its answer. */
  readonly serviceMs: number;
  /** Until the first sign of life. */
  readonly latencyMs: number;
  /** Tasks that waited at the callee. */
  readonly queueDepth: number;
}

export interface ChooseOptions {
  /** Kept while it is a candidate and not penalised. */
  readonly sticky?: NodeId;
  readonly exclude?: ReadonlySet<NodeId>;
}

export interface Router {
  observe(node: NodeId, observation: Observation): void;
  /** It hung or gave a wrong answer: doubles its penalty, which halves with time. */
  penalise(node: NodeId): void;
  /** Smoothed service × (queue + 1) + latency + penalty; of a node never used, its penalty alone. */
  expectedMs(node: NodeId): number;
  /** Undefined when no candidate is left. */
  choose(candidates: readonly NodeId[], options?: ChooseOptions): NodeId | undefined;
}

const smoothing = 0.25;
const penaltyMsMin = 1_000;
const penaltyMsMax = 60_000;
const penaltyHalvesMs = 3_000;
/** Below this a penalty is healed: about 10 s after a single one. */
const healedMs = 100;
/** What a queue held is soon no longer so. */
const queueHalvesMs = 2_000;
/** A node that was slow once, say while it compiled its graphs, is tried again. */
const serviceHalvesMs = 10_000;
/** Among the best: expected within this factor of the best, or so near to it that the difference means nothing. */
const amongBestFactor = 2;
const amongBestMs = 10;
const nodesMax = 4_096;

interface Score {
  serviceMs: number;
  latencyMs: number;
  queueDepth: number;
  observedMs: number;
  penaltyMs: number;
  penalisedMs: number;
  isKnown: boolean;
}

interface Routing {
  readonly clock: Clock;
  readonly random: Random;
  /** The least recently used first. */
  readonly scores: Map<NodeId, Score>;
}

export function createRouter({ clock, random }: { readonly clock: Clock; readonly random: Random }): Router {
  const routing: Routing = { clock, random, scores: new Map() };
  return {
    observe: (node, observation) => observe(routing, node, observation),
    penalise: (node) => {
      const beforeMs = penaltyMs(routing, node);
      const score = scoreOf(routing, node);
      score.penaltyMs = Math.min(Math.max(2 * beforeMs, penaltyMsMin), penaltyMsMax);
      score.penalisedMs = clock.nowMs();
    },
    expectedMs: (node) => expectedMs(routing, node),
    choose: (candidates, options) => choose(routing, candidates, options),
  };
}

function observe(routing: Routing, node: NodeId, observation: Observation): void {
  const { serviceMs, latencyMs, queueDepth } = observation;
  const values = [serviceMs, latencyMs, queueDepth];
  if (!values.every((value) => value >= 0 && value < Number.POSITIVE_INFINITY)) return;
  const score = scoreOf(routing, node);
  const share = score.isKnown ? smoothing : 1;
  score.serviceMs += share * (serviceMs - score.serviceMs);
  score.latencyMs += share * (latencyMs - score.latencyMs);
  score.queueDepth = queueDepth;
  score.observedMs = routing.clock.nowMs();
  score.isKnown = true;
}

/** Makes it the most recently used. */
function scoreOf({ scores }: Routing, node: NodeId): Score {
  const score = scores.get(node) ?? {
    serviceMs: 0,
    latencyMs: 0,
    queueDepth: 0,
    observedMs: 0,
    penaltyMs: 0,
    penalisedMs: 0,
    isKnown: false,
  };
  scores.delete(node);
  scores.set(node, score);
  if (scores.size > nodesMax) scores.delete(scores.keys().next().value!);
  return score;
}

function expectedMs(routing: Routing, node: NodeId): number {
  const score = routing.scores.get(node);
  if (!score?.isKnown) return penaltyMs(routing, node);
  const idleMs = Math.max(0, routing.clock.nowMs() - score.observedMs);
  const waiting = score.queueDepth * 0.5 ** (idleMs / queueHalvesMs);
  const serviceMs = score.serviceMs * 0.5 ** (idleMs / serviceHalvesMs);
  return serviceMs * (waiting + 1) + score.latencyMs + penaltyMs(routing, node);
}

function penaltyMs({ clock, scores }: Routing, node: NodeId): number {
  const score = scores.get(node);
  if (!score || score.penaltyMs === 0) return 0;
  const sinceMs = Math.max(0, clock.nowMs() - score.penalisedMs);
  const leftMs = score.penaltyMs * 0.5 ** (sinceMs / penaltyHalvesMs);
  return leftMs < healedMs ? 0 : leftMs;
}

function choose(
  routing: Routing,
  candidates: readonly NodeId[],
  { sticky, exclude }: ChooseOptions = {},
): NodeId | undefined {
  const { random } = routing;
  const allowed = [...new Set(candidates)].filter((node) => !exclude?.has(node));
  if (sticky !== undefined && allowed.includes(sticky) && penaltyMs(routing, sticky) === 0) return sticky;
  const ranked = allowed.map((node) => ({ node, ms: expectedMs(routing, node) }));
  const bestMs = ranked.reduce((least, { ms }) => Math.min(least, ms), Number.POSITIVE_INFINITY);
  const best = ranked.filter(({ ms }) => ms <= amongBestFactor * bestMs + amongBestMs);
  if (best.length < 2) return best[0]?.node;
  const first = uniformBelow(random, best.length);
  const second = (first + 1 + uniformBelow(random, best.length - 1)) % best.length;
  return best[best[first]!.ms <= best[second]!.ms ? first : second]!.node;
}
