/** Replicas of a small model's stages on the in-memory network in virtual time, and one node that asks them: for tests. */
import { createVirtualClock, type VirtualClock } from '../sim/virtual-clock.ts';
import type { ModelConfig } from '../src/model/config.ts';
import { packResults, unpackCalls } from '../src/model/decode-batch.ts';
import { sessionCacheBytes } from '../src/model/decode-cache.ts';
import { createDecodeStage, type DecodeStage } from '../src/model/decode-stage.ts';
import { initialParameter } from '../src/model/initialize.ts';
import { parameterList, type StageSpec, wholeModel } from '../src/model/parameters.ts';
import { cutStages } from '../src/model/stage-cut.ts';
import { createMemoryHub, type MemoryHub } from '../src/net/memory-transport.ts';
import type { Transport } from '../src/net/transport.ts';
import { createDecodeClient, type DecodeClient, type DecodeFailover } from '../src/pipeline/decode-client.ts';
import { serveDecode } from '../src/pipeline/decode-server.ts';
import { createDecodeService, type DecodeService } from '../src/pipeline/decode-service.ts';
import { createLinkWatch } from '../src/pipeline/link-watch.ts';
import type { ServiceMeter, ServicePayer } from '../src/pipeline/payment.ts';
import { createRouter } from '../src/pipeline/routing.ts';
import { must } from '../src/std/assert.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sleep } from '../src/std/clock.ts';
import { sha256 } from '../src/std/hash.ts';
import { accept } from '../src/std/outcome.ts';
import { seededRandom } from '../src/std/random.ts';
import type { Engine, Program } from '../src/tensor/engine.ts';

export const decodeConfig: ModelConfig = {
  layers: 3,
  width: 32,
  heads: 4,
  kvHeads: 2,
  headWidth: 8,
  ffn: 48,
  vocabulary: 300,
  context: 80,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};

/** Large enough that the likeliest token is not the same everywhere. */
export const decodeWeights: Readonly<Record<string, Float32Array>> = Object.fromEntries(
  parameterList(decodeConfig, wholeModel(decodeConfig)).map(({ name, shape, kind }) => {
    const values = initialParameter(utf8('decode'), name, shape, decodeConfig);
    return [name, kind === 'matrix' ? values.map((value) => value * 10) : values];
  }),
);

export interface DecodeNode {
  readonly id: string;
  readonly stage: number;
  readonly transport: Transport;
  readonly decoder: DecodeStage;
  readonly service: DecodeService;
  /** Rounds whose weights it has, the last one current; equal in all of them. */
  rounds: number[];
  /** Nothing goes in or out any more, as of a process that was stopped. */
  isFrozen: boolean;
}

export interface DecodeNetwork {
  readonly clock: VirtualClock;
  readonly hub: MemoryHub;
  /** By stage, then replica. */
  readonly nodes: readonly (readonly DecodeNode[])[];
  readonly caller: Transport;
  readonly client: DecodeClient;
  readonly failovers: DecodeFailover[];
  /** The caller no longer knows the node. */
  forget(node: DecodeNode): void;
  /** Runs virtual time until the work is over. */
  finish<T>(work: Promise<T>): Promise<T>;
}

export interface DecodeNetworkOptions {
  readonly engine: Engine;
  readonly stages: number;
  readonly replicas: number;
  /** Sessions that a replica's memory holds; 32 by default. */
  readonly slots?: number;
  /** Virtual time of one run of a stage. */
  readonly serviceMs?: number;
  /** The caller holds this stage itself. */
  readonly callerStage?: number;
  readonly seed?: number;
  /** Nodes that are there already, in the place of new ones. */
  readonly on?: DecodeGround;
}

/** Who stands where, and what it has to do with pay. */
export interface DecodeGround {
  readonly clock: VirtualClock;
  readonly hub: MemoryHub;
  serving(stage: number, replica: number): DecodeSeat;
  readonly caller: DecodeSeat;
}

export interface DecodeSeat {
  readonly transport: Transport;
  readonly meter?: ServiceMeter;
  readonly payer?: ServicePayer;
}

/** Compiles equal graphs once: programs hold no state, and compiling takes most of a test's time. */
export function compilingOnce(engine: Engine): Engine {
  const programs = new Map<string, Promise<Program>>();
  return {
    ...engine,
    compile: (graph) => {
      const key = JSON.stringify(
        [...graph.inputs, ...graph.outputs].map(([name, { shape }]) => [name, shape]),
      );
      const known =
        programs.get(key) ??
        engine.compile(graph).then((program) => ({ ...program, release: async () => {} }));
      programs.set(key, known);
      return known;
    },
  };
}

export function weightsOf(spec: StageSpec): Readonly<Record<string, Float32Array>> {
  return Object.fromEntries(
    parameterList(decodeConfig, spec).map(({ name }) => [name, must(decodeWeights[name], name)]),
  );
}

export function createDecodeNetwork(options: DecodeNetworkOptions): DecodeNetwork {
  const { stages, replicas, callerStage, seed = 1 } = options;
  const { on } = options;
  const clock = on?.clock ?? createVirtualClock();
  const random = seededRandom(sha256(utf8(`decode network ${seed}`)));
  const frozen = (id: string) => everyone.some((node) => node.id === id && node.isFrozen);
  const link = (from: string, to: string) => ({ delayMs: 2, lost: frozen(from) || frozen(to) });
  const hub = on?.hub ?? createMemoryHub({ clock, random, link });
  const cut = cutStages(decodeConfig, stages);
  const forgotten = new Set<string>();
  const nodes = cut.map((spec, stage) =>
    Array.from({ length: replicas }, (_, i) => {
      const seat = on?.serving(stage, i) ?? { transport: hub.join(idOf(`stage ${stage} replica ${i}`)) };
      return decodeNode(options, clock, seat, spec, stage);
    }),
  );
  const everyone: DecodeNode[] = nodes.flat();
  const seat = on?.caller ?? { transport: hub.join(idOf('caller')) };
  const caller = seat.transport;
  const failovers: DecodeFailover[] = [];
  const own =
    callerStage === undefined ? undefined : decodeNode(options, clock, seat, cut[callerStage]!, callerStage);
  const client = createDecodeClient({
    config: decodeConfig,
    stages: cut,
    transport: caller,
    clock,
    random,
    router: createRouter({ clock, random }),
    links: createLinkWatch({ clock }),
    candidates: (stage) =>
      nodes[stage]!.map(({ id }) => id).filter((id) => caller.peers().includes(id) && !forgotten.has(id)),
    ...(own && { local: { stage: own.stage, service: own.service } }),
    ...(seat.payer && { payer: seat.payer }),
    onFailover: (failover) => failovers.push(failover),
  });
  return {
    clock,
    hub,
    nodes: own ? [...nodes, [own]] : nodes,
    caller,
    client,
    failovers,
    forget: (node) => void forgotten.add(node.id),
    finish: (work) => finish(clock, work),
  };
}

function idOf(name: string): string {
  return Buffer.from(sha256(utf8(name))).toString('hex');
}

function decodeNode(
  { engine, slots = 32, serviceMs = 3 }: DecodeNetworkOptions,
  clock: VirtualClock,
  { transport, meter }: DecodeSeat,
  spec: StageSpec,
  stage: number,
): DecodeNode {
  const weights = weightsOf(spec);
  const decoder = createDecodeStage({
    engine,
    config: decodeConfig,
    stage: spec,
    parameters: (round) => (node.rounds.includes(round) ? weights : undefined),
    cacheBytesMax: slots * sessionCacheBytes(decodeConfig, spec, decodeConfig.context),
  });
  const positionLength = spec.embedding ? 1 : decodeConfig.width;
  const service = createDecodeService({
    clock,
    positionLength,
    host: {
      openSession: async ({ session, round = node.rounds.at(-1)! }) => {
        const opened = decoder.open({ session, round });
        return opened.ok ? accept({ round, engineClass: engine.id, capacity: decoder.capacity }) : opened;
      },
      decode: async (batch) => {
        const outcomes = await clock.during(decoder.run(unpackCalls(batch)));
        await sleep(clock, serviceMs);
        return packResults(outcomes);
      },
      closeSession: async (session) => decoder.close(session),
    },
  });
  const entries = { embedding: spec.embedding, width: decodeConfig.width };
  serveDecode({ service, stage, entries, transport, clock, ...(meter && { meter }) });
  const node: DecodeNode = {
    id: transport.self,
    stage,
    transport,
    decoder,
    service,
    rounds: [0],
    isFrozen: false,
  };
  return node;
}

async function finish<T>(clock: VirtualClock, work: Promise<T>): Promise<T> {
  let isOver = false;
  const watched = work.finally(() => {
    isOver = true;
  });
  watched.catch(() => undefined);
  for (let i = 0; i < 10_000 && !isOver; i++) await clock.run(clock.nowMs() + 1_000, () => isOver);
  return watched;
}
