/**
 * A pipeline of stages in virtual time, for benchmarks: the product's driver, routes, server, queues and bookkeeping of
 * gradients over the in-memory network, and in the place of tensors a computation that takes a given time. It knows
 * which microbatches each optimizer step was made of, and neither peers nor rounds.
 */
import { type Life, lifeClock } from '../../sim/life.ts';
import { stream } from '../../sim/random.ts';
import { createVirtualClock, type VirtualClock } from '../../sim/virtual-clock.ts';
import { type KeyPair, keyPairFrom } from '../../src/identity/keys.ts';
import type { LinkVerdict } from '../../src/net/memory-link.ts';
import { createMemoryHub, type MemoryHub } from '../../src/net/memory-transport.ts';
import type { NodeId } from '../../src/net/transport.ts';
import type { GradientSum } from '../../src/optim/pipeline-gradients.ts';
import type { PipelineStage } from '../../src/optim/pipeline-stage.ts';
import { createPipelineSums } from '../../src/optim/pipeline-sums.ts';
import { createDriver } from '../../src/pipeline/driver.ts';
import { createLinkWatch } from '../../src/pipeline/link-watch.ts';
import type { BoundaryShape } from '../../src/pipeline/messages.ts';
import { createNextStage, type Failover } from '../../src/pipeline/next-stage.ts';
import { createNormGuard } from '../../src/pipeline/norm-guard.ts';
import { createRouter } from '../../src/pipeline/routing.ts';
import type { ServingNode } from '../../src/pipeline/served-seals.ts';
import type { StageNode, StepTaken } from '../../src/pipeline/stage-node.ts';
import { type StageServer, serveStage } from '../../src/pipeline/stage-server.ts';
import { createWeightsGate } from '../../src/pipeline/weights-gate.ts';
import { createWorkQueue } from '../../src/pipeline/work-queue.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { type Clock, sleep } from '../../src/std/clock.ts';
import { sha256 } from '../../src/std/hash.ts';
import { inTurn } from '../../src/std/in-turn.ts';
import { accept, type Outcome } from '../../src/std/outcome.ts';

/** Of one microbatch; backward includes the forward made again. A stage with the head only runs backward. */
export interface StageCost {
  readonly forwardMs: number;
  readonly backwardMs: number;
}

export interface VirtualPipelineOptions {
  readonly seed: number;
  readonly costs: readonly StageCost[];
  /** Of each stage but the first, which the one Driver holds. */
  readonly replicas: number;
  readonly microbatches: number;
  readonly window: number;
  readonly shape: BoundaryShape;
  readonly link: (from: NodeId, to: NodeId, bytes: number, clock: Clock) => LinkVerdict;
  /** As the transport has measured it; nobody has unless given. */
  readonly roundTripMs?: number;
}

/** A step that a stage took. */
export interface Applied {
  readonly node: NodeId;
  readonly stage: number;
  /** `numberOf` all microbatches that the sum was made of, in the order they were added. */
  readonly numbers: readonly number[];
}

const microbatchesMax = 64;

/** Names a microbatch of a whole run; exact in f32 rows for 131,072 steps of up to 64. */
export function numberOf(step: number, index: number): number {
  return step * microbatchesMax + index;
}

export interface VirtualNode {
  readonly id: NodeId;
  readonly stage: number;
  /** Whether a computation is running there. */
  readonly isBusy: () => boolean;
  readonly queue: StageNode['queue'];
}

export interface VirtualPipeline {
  readonly clock: VirtualClock;
  readonly hub: MemoryHub;
  /** By stage; the Driver alone in the first. */
  readonly stages: readonly (readonly NodeId[])[];
  readonly applied: Applied[];
  readonly failovers: (Failover & { readonly atMs: number })[];
  readonly lost: { readonly step: number; readonly index: number; readonly code: string }[];
  node(id: NodeId): VirtualNode;
  kill(id: NodeId): void;
  /** With nothing of what it knew. */
  restart(id: NodeId): void;
  /** The Driver's inner step; virtual time must run for it to end. */
  innerStep(step: number): Promise<Outcome<StepTaken>>;
}

/** What is summed in the place of gradients. */
type Summed = GradientSum & { readonly numbers: number[] };

/** Rows of an ordinary size whose first value bears the number of their microbatch, in its lowest bits. */
function rowsOf({ tokens, width }: BoundaryShape, number: number): Float32Array {
  const rows = new Float32Array(tokens * width).fill(1);
  rows[0] = 1 + number * 2 ** -23;
  return rows;
}

function numberIn(entry: Int32Array | Float32Array): number {
  return entry instanceof Int32Array ? entry[0]! : Math.round((entry[0]! - 1) * 2 ** 23);
}

const round = 0;

export function createVirtualPipeline(options: VirtualPipelineOptions): VirtualPipeline {
  const { seed, costs, replicas, shape } = options;
  const clock = createVirtualClock();
  const hub = createMemoryHub({
    clock,
    random: stream(seed, 'hub'),
    link: (from, to, bytes) => options.link(from, to, bytes, clock),
    ...(options.roundTripMs !== undefined && { roundTripMs: () => options.roundTripMs! }),
  });
  const keys = new Map<NodeId, KeyPair>();
  const idOf = (stage: number, replica: number) => {
    const key = keyPairFrom(sha256(utf8(`bench ${seed} ${stage} ${replica}`)));
    keys.set(key.nodeId, key);
    return key.nodeId;
  };
  const stages = costs.map((_, stage) =>
    Array.from({ length: stage === 0 ? 1 : replicas }, (_, replica) => idOf(stage, replica)),
  );
  const applied: Applied[] = [];
  const failovers: VirtualPipeline['failovers'] = [];
  const lost: VirtualPipeline['lost'] = [];
  const running = new Map<NodeId, Running>();
  const surroundings: Surroundings = { options, clock, hub, keys, stages, applied, failovers };
  for (const [stage, ids] of stages.entries())
    for (const id of ids) running.set(id, startNode(surroundings, id, stage));

  const self = stages[0]![0]!;
  const claim = utf8(self);
  let step = 0;
  const driver = createDriver({
    node: running.get(self)!.node,
    self,
    microbatches: options.microbatches,
    window: options.window,
    batch: async (_round, step, index) => ({
      index,
      entry: new Int32Array(shape.tokens).fill(numberOf(step, index)),
      labels: new Int32Array(shape.tokens),
      claim,
    }),
    onLost: (index, code) => lost.push({ step, index, code }),
  });
  return {
    clock,
    hub,
    stages,
    applied,
    failovers,
    lost,
    node: (id) => {
      const { node, isBusy } = running.get(id)!;
      return { id, stage: node.stage, isBusy, queue: node.queue };
    },
    kill: (id) => {
      running.get(id)!.life.alive = false;
      hub.crash(id);
    },
    restart: (id) => {
      running.set(id, startNode(surroundings, id, running.get(id)!.node.stage));
    },
    innerStep: (next) => {
      step = next;
      return driver.innerStep({ round, step, learningRate: 1 }, new AbortController().signal);
    },
  };
}

interface Surroundings extends Pick<VirtualPipeline, 'clock' | 'hub' | 'stages' | 'applied' | 'failovers'> {
  readonly options: VirtualPipelineOptions;
  readonly keys: ReadonlyMap<NodeId, KeyPair>;
}

interface Running {
  readonly node: StageNode;
  readonly life: Life;
  readonly server: StageServer | undefined;
  readonly isBusy: () => boolean;
}

function startNode(surroundings: Surroundings, id: NodeId, stage: number): Running {
  const { options, hub, stages, failovers } = surroundings;
  const { shape } = options;
  const life: Life = { alive: true };
  const signing = { networkId: new Uint8Array(32), key: surroundings.keys.get(id)! };
  const clock = lifeClock(surroundings.clock, life);
  const transport = hub.join(id);
  const random = stream(options.seed, 'node', id, surroundings.clock.nowMs());
  const at: Place = { id, stage, clock, last: stage === stages.length - 1 };
  const { compute, isBusy } = fakeCompute(surroundings, at);
  const router = createRouter({ clock, random });
  const depth = { decode: 256, backward: 128, forward: 128, background: 16 };
  const node: ServingNode = {
    stage,
    compute,
    queue: createWorkQueue({ clock, depthMax: depth }),
    gate: createWeightsGate(),
    next: at.last
      ? undefined
      : createNextStage({
          stage: stage + 1,
          shape,
          signing,
          keepsRows: false,
          transport,
          clock,
          candidates: (wanted) => {
            const connected = new Set(transport.peers());
            return stages[wanted]!.filter((node) => connected.has(node));
          },
          preferred: (candidates) => candidates[0],
          router,
          links: createLinkWatch({ clock, roundTripMs: transport.roundTripMs }),
          guard: createNormGuard(),
          onFailover: (failover) => failovers.push({ ...failover, atMs: clock.nowMs() }),
          onStarving: () => {},
        }),
    clip: 1,
    signing,
    records: undefined,
  };
  const server =
    stage === 0
      ? undefined
      : serveStage({
          node,
          shape,
          transport,
          clock,
          guard: createNormGuard(),
          admits: () => accept(undefined),
          learningRate: () => 1,
          checkClaim: async ({ claim }) => accept(new TextDecoder().decode(claim)),
          onStep: () => {},
        });
  return { node, life, server, isBusy };
}

interface Place {
  readonly id: NodeId;
  readonly stage: number;
  readonly clock: Clock;
  /** Holds the head. */
  readonly last: boolean;
}

/** The product's bookkeeping over a trainer that takes its time and sums numbers of microbatches. */
function fakeCompute(surroundings: Surroundings, { id, stage, clock, last }: Place) {
  const { options, applied } = surroundings;
  const { shape } = options;
  const cost = options.costs[stage]!;
  let working = 0;
  const work = async (ms: number) => {
    working++;
    await sleep(clock, ms);
    working--;
  };
  const sums = createPipelineSums({
    sums: { take: makeSum, give: () => {}, trim: () => {} },
    isEntry: () => true,
    isTarget: () => true,
    forward: async (entry) => {
      await work(cost.forwardMs);
      return rowsOf(shape, numberIn(entry));
    },
    backward: async (entry, _target, sum) => {
      await work(cost.backwardMs);
      if (sum) {
        (sum as Summed).numbers.splice(sum.count, Number.POSITIVE_INFINITY, numberIn(entry));
        sum.count += 1;
      }
      return { inputGradient: stage === 0 ? null : rowsOf(shape, numberIn(entry)), loss: last ? 1 : null };
    },
    sumSquares: () => [1],
    apply: (sum) => {
      applied.push({ node: id, stage, numbers: (sum as Summed).numbers.slice(0, sum.count) });
    },
  });
  const turn = inTurn();
  const compute: PipelineStage = {
    forward: (call) => turn(() => sums.forward(call)),
    backward: (call) => turn(() => sums.backward(call)),
    prepareStep: (call) => turn(() => sums.prepareStep(call)),
    applyStep: (call) => turn(async () => sums.applyStep({ ...call, step: 1 })),
    discard: (call) => turn(() => sums.discard(call)),
    evaluateRows: async () => rowsOf(shape, 0),
    evaluateLoss: async () => 1,
  };
  return { compute, isBusy: () => working > 0 };
}

function makeSum(): Summed {
  return { count: 0, slabs: [], views: {}, numbers: [] };
}
