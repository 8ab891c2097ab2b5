/**
 * Failures in the middle of microbatches in virtual time: how long until each goes on elsewhere, and whether every
 * gradient is in exactly one step of each stage. It prints nothing.
 */
import { between, chance, pick, stream } from '../../sim/random.ts';
import type { NodeId } from '../../src/net/transport.ts';
import type { Random } from '../../src/std/random.ts';
import { createVirtualPipeline, numberOf, type VirtualPipeline } from './virtual-pipeline.ts';
import { createWanLink } from './wan-link.ts';

export interface VirtualFailoverOptions {
  /** Failures, one after another: every other one kills a node, the others make it hang. 0: nobody fails, for `quietMs`. */
  readonly events: number;
  readonly seed: number;
  readonly rttMs: number;
  /** Of packets; a lost one makes what it belonged to late, and all after it. */
  readonly loss: number;
  /** Virtual time without failures, when there are no events; 10 minutes by default. */
  readonly quietMs?: number;
}

export interface VirtualFailovers {
  readonly events: number;
  /** From the last sign of life of the node given up to the first of its replacement, for each microbatch it had. */
  readonly p50Ms: number;
  readonly p95Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
  /** Microbatches that went on elsewhere because of the events. */
  readonly microbatches: number;
  /** Microbatches that are in no step, or that a stage's step was made without. */
  readonly lost: number;
  /** Microbatches that are in two steps of a stage, or twice in one. */
  readonly doubled: number;
  /** Nodes given up that had not failed. */
  readonly falseFailovers: number;
  /** Microbatches begun in all. */
  readonly begun: number;
  readonly virtualSeconds: number;
}

const costs = [
  { forwardMs: 8, backwardMs: 16 },
  { forwardMs: 10, backwardMs: 20 },
  { forwardMs: 10, backwardMs: 30 },
];
const microbatches = 8;
const replicas = 4;
/** A node that failed is back after so long: before the next one fails. */
const awayMs = [1_000, 2_000] as const;
const betweenMs = [2_200, 4_000] as const;

export async function runVirtualFailovers(options: VirtualFailoverOptions): Promise<VirtualFailovers> {
  const { events, seed, rttMs, loss, quietMs = 600_000 } = options;
  const random = stream(seed, 'failures');
  const pipeline = createVirtualPipeline({
    seed,
    costs,
    replicas,
    microbatches,
    window: microbatches,
    shape: { tokens: 4, width: 4, vocabulary: 2, codec: 'f32' },
    link: createWanLink({ random: stream(seed, 'link'), rttMs, loss }),
    roundTripMs: rttMs,
  });
  const { clock } = pipeline;
  const startedMs = clock.nowMs();
  const steps = runSteps(pipeline);
  await clock.run(clock.nowMs() + 5_000);
  const down = new Map<NodeId, number>();
  const mark = pipeline.failovers.length;
  if (events === 0) await clock.run(clock.nowMs() + quietMs);
  for (let event = 0; event < events; event++) await failOne(pipeline, random, down, event % 2 === 0);
  await clock.run(clock.nowMs() + 10_000);
  const begun = await steps.stop();

  const caused = pipeline.failovers.slice(mark).filter(({ node, atMs }) => wasDown(down, node, atMs));
  const silent = caused.map(({ acceptedMs, lastSignMs }) => acceptedMs - lastSignMs).sort((a, b) => a - b);
  const quantile = (q: number) => silent[Math.max(0, Math.ceil(q * silent.length) - 1)] ?? 0;
  return {
    events,
    p50Ms: quantile(0.5),
    p95Ms: quantile(0.95),
    p99Ms: quantile(0.99),
    maxMs: quantile(1),
    microbatches: silent.length,
    ...countGradients(pipeline, begun),
    falseFailovers: pipeline.failovers.length - caused.length,
    begun: begun * microbatches,
    virtualSeconds: (clock.nowMs() - startedMs) / 1000,
  };
}

/** One step after another, until told to end; the number of steps made comes back. */
function runSteps(pipeline: VirtualPipeline) {
  let isOver = false;
  let ended = false;
  let step = 0;
  const all = (async () => {
    for (; !isOver; step++) {
      const taken = await pipeline.innerStep(step);
      if (!taken.ok) throw new Error(`step ${step}: ${taken.code} ${taken.detail}`);
    }
  })().finally(() => {
    ended = true;
  });
  return {
    stop: async () => {
      isOver = true;
      await pipeline.clock.run(Number.POSITIVE_INFINITY, () => ended);
      await all;
      return step;
    },
  };
}

/** Takes a node away in the middle of its work, and lets it come back later. `down` keeps when it is to be back. */
async function failOne(
  pipeline: VirtualPipeline,
  random: Random,
  down: Map<NodeId, number>,
  isKill: boolean,
): Promise<void> {
  const { clock, hub, stages } = pipeline;
  await clock.run(clock.nowMs() + between(random, ...betweenMs));
  let victim: NodeId | undefined;
  const busy = () =>
    stages
      .slice(1)
      .flat()
      .filter((id) => (down.get(id) ?? 0) < clock.nowMs() && pipeline.node(id).isBusy());
  const wanted = chance(random, 0.5) ? 1 : 2;
  while (victim === undefined) {
    await clock.run(clock.nowMs() + between(random, 1, 7));
    const here = busy().filter((id) => pipeline.node(id).stage === wanted);
    if (here.length > 0) victim = pick(random, here);
  }
  const id = victim;
  const backMs = between(random, ...awayMs);
  down.set(id, clock.nowMs() + backMs);
  if (isKill) pipeline.kill(id);
  else hub.stall(id);
  clock.setTimer(backMs, () => (isKill ? pipeline.restart(id) : hub.resume(id)));
}

/** What a call that hung has waited for, at most, after its node is back: it may be given up then because of before. */
const afterwardsMs = 2_500;

function wasDown(down: ReadonlyMap<NodeId, number>, node: NodeId, atMs: number): boolean {
  const backMs = down.get(node);
  return backMs !== undefined && atMs <= backMs + afterwardsMs;
}

/** Every microbatch that was begun is once in the steps of each stage. */
function countGradients({ applied, stages }: VirtualPipeline, steps: number) {
  let lost = 0;
  let doubled = 0;
  for (const stage of stages.keys()) {
    const times = new Map<number, number>();
    for (const { numbers } of applied.filter((one) => one.stage === stage))
      for (const number of numbers) times.set(number, (times.get(number) ?? 0) + 1);
    for (let step = 0; step < steps; step++)
      for (let index = 0; index < microbatches; index++) {
        const count = times.get(numberOf(step, index)) ?? 0;
        if (count === 0) lost += 1;
        if (count > 1) doubled += 1;
      }
  }
  return { lost, doubled };
}
