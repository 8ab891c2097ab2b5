/**
 * One node's stage in the pipeline, wired: queue, gate, routes to the next stage, the server for the stage before, and
 * the Driver where the embedding is. `train.ts` reads its steps; a model held whole has one stage and no neighbours.
 */
import type { StageReplica } from '../diloco/replica.ts';
import type { Dataset } from '../genesis/dataset.ts';
import type { KeyPair } from '../identity/keys.ts';
import { cutStages } from '../model/stage-cut.ts';
import type { Transport } from '../net/transport.ts';
import { learningRate } from '../optim/schedule.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import type { Claim } from '../pipeline/claim.ts';
import { contentHash, encodeClaim, makeClaim } from '../pipeline/claim.ts';
import type { StageDirectory } from '../pipeline/directory.ts';
import { createDriver, pipelineWindow } from '../pipeline/driver.ts';
import { createLinkWatch } from '../pipeline/link-watch.ts';
import type { BoundaryShape } from '../pipeline/messages.ts';
import { createNextStage, type Failover } from '../pipeline/next-stage.ts';
import { createNormGuard } from '../pipeline/norm-guard.ts';
import { createRouter, type Router } from '../pipeline/routing.ts';
import type { RowStore } from '../pipeline/row-store.ts';
import type { StageLookup } from '../pipeline/stage-lookup.ts';
import { evaluateStage, type StageNode, type StepTaken } from '../pipeline/stage-node.ts';
import { type StageServer, serveStage } from '../pipeline/stage-server.ts';
import { createStepRecords, type StepRecords } from '../pipeline/step-records.ts';
import { createWeightsGate } from '../pipeline/weights-gate.ts';
import { createWorkQueue, type WorkQueue } from '../pipeline/work-queue.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { Random } from '../std/random.ts';
import type { Store } from '../std/store.ts';
import type { EventSink } from './events.ts';
import { watchFraud } from './fraud-watch.ts';
import type { NetworkManifest } from './network.ts';

export interface PipelineOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly stage: number;
  readonly replica: StageReplica;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  /** Of what must outlive this process. */
  readonly store: Store;
  /** Of rows, as evidence of a stage's steps; without it, or of a model held whole, none is kept. */
  readonly rows?: RowStore;
  readonly directory: StageDirectory;
  /** Of the next stage; where they are few, others are looked for. */
  readonly candidates: StageLookup['candidates'];
  /** What this node may use: others assign newcomers by it. */
  readonly memoryBytes: number;
  readonly events: EventSink;
  /** What the Driver trains on; hostile nodes put another one in. */
  readonly batch: (round: number, step: number, index: number) => Promise<Batch>;
  /** A step was taken for another node's Driver. */
  readonly onServed: (step: StepTaken) => void;
  /** This node has found out a Driver that signs batches not its own. */
  readonly onFraud: (claim: Claim) => void;
}

export interface PipelineStats {
  readonly queue: ReturnType<WorkQueue['stats']>;
  readonly failovers: number;
  readonly lostMicrobatches: number;
  readonly starving: boolean;
  /** Bytes of rows and their messages, as the caller. */
  readonly boundaryBytesSent: number;
  readonly boundaryBytesReceived: number;
  readonly boundaryTokens: number;
  readonly convictedDrivers: number;
}

export interface Pipeline {
  readonly stage: number;
  readonly stages: number;
  readonly isDriver: boolean;
  readonly router: Router;
  readonly queue: WorkQueue;
  /** What the steps of this stage were made of; undefined where that is not kept. */
  readonly work: Pick<StepRecords, 'stepsOf' | 'rows' | 'release'> | undefined;
  /** Whether a Driver was found to lie about its batches. */
  isConvicted(node: string): boolean;
  /** The ledger has taken this evidence of a Driver's fraud. */
  fraudDecided(evidence: Uint8Array): void;
  /** Takes part in this round from now on; `anew`: from its start. */
  begin(round: number, anew?: boolean): void;
  /** No step of this round any more: what is under way ends without effect. */
  end(): Promise<void>;
  /** The Driver's inner step. */
  innerStep(round: number, step: number, signal: AbortSignal): Promise<Outcome<StepTaken>>;
  /** Mean loss of w_r over held-out batches, from the first stage. */
  evaluate(round: number, batches: readonly Batch[], signal: AbortSignal): Promise<Outcome<number>>;
  /** Drivers served in this round. */
  served: StageServer['drivers'];
  stats(): PipelineStats;
  close(): void;
}

/** Share of claims that a stage other than the last one recomputes; the last has the labels and checks every one. */
const claimCheckShare = 1 / 8;
const queueDepthMax = { decode: 256, backward: 128, forward: 128, background: 16 };

export function createPipeline(options: PipelineOptions): Pipeline {
  const { network, key, stage, replica, transport, clock, random, directory } = options;
  const { training } = network;
  const stages = cutStages(network.model, training.stages).length;
  const shape = boundaryOf(network);
  const members = new Set(network.members.map(({ nodeId }) => nodeId));
  const counters = { failovers: 0, lost: 0, starving: false, sent: 0, received: 0, tokens: 0 };
  const router = createRouter({ clock, random });
  const queue = createWorkQueue({ clock, depthMax: queueDepthMax });
  const fraud = watchFraud({
    ...options,
    self: key.nodeId,
    share: stage === stages - 1 ? 1 : claimCheckShare,
    round: () => latest,
    onConvicted: (node, found) => {
      server?.drop(node);
      if (found) options.onFraud(found);
    },
  });
  const guards = { rows: createNormGuard(), gradients: createNormGuard() };
  const records = stages > 1 && options.rows ? createStepRecords(options.rows) : undefined;
  const signing = { networkId: network.networkId, key };
  let admitted = -1;
  /** The round that was begun last, whether or not it is over. */
  let latest = 0;

  const next =
    stage === stages - 1
      ? undefined
      : createNextStage({
          stage: stage + 1,
          shape,
          signing,
          keepsRows: records !== undefined,
          transport,
          clock,
          candidates: options.candidates,
          preferred: (candidates) => {
            const cohort = [...directory.candidates(stage), key.nodeId].sort();
            return candidates[cohort.indexOf(key.nodeId) % candidates.length];
          },
          router,
          links: createLinkWatch({ clock, roundTripMs: transport.roundTripMs }),
          guard: guards.gradients,
          onFailover: (failover) => {
            counters.failovers++;
            options.events(failoverEvent(failover));
          },
          onStarving: (starved, starving) => {
            counters.starving = starving;
            const detail = `no replica of stage ${starved + 1} can be had: waiting`;
            if (starving) options.events({ type: 'warning', code: 'no-route', detail });
          },
          onBytes: (sent, received) => {
            counters.sent += sent;
            counters.received += received;
            counters.tokens += shape.tokens;
          },
        });
  const place = { stage, compute: replica, queue, gate: createWeightsGate(), next, clip: training.clip };
  const node: StageNode = { ...place, records, signing: stages > 1 ? signing : undefined };
  /** Tokens a second that this stage trained on while it was at work; 0 before it was. */
  const speed = () => {
    const { served, busyMs } = queue.stats();
    return busyMs === 0 ? 0 : Math.round((1000 * served.backward * shape.tokens) / busyMs);
  };
  const rate = (round: number, step: number) => learningRate(training, round * training.innerSteps + step);
  /** This stage took a step, and the next one did not, as far as is known. */
  const tellLost = ({ step, round, driver, lost }: StepTaken) => {
    if (lost === null) return;
    const whose = `step ${step} of round ${round} of Driver ${driver.slice(0, 8)}`;
    const detail = `${whose} may be lost from stage ${stage + 1} on (${lost})`;
    options.events({ type: 'warning', code: 'step-lost', detail });
  };
  const server =
    stage === 0
      ? undefined
      : serveStage({
          node: { ...node, signing },
          shape,
          transport,
          clock,
          guard: guards.rows,
          admits: (round) => {
            if (round === admitted) return accept(undefined);
            if (round === latest) return reject('round-over');
            return reject(round < latest ? 'past-round' : 'wrong-round');
          },
          learningRate: rate,
          checkClaim: (request) => fraud.check(request),
          isConvicted: (node) => fraud.isConvicted(node),
          isMember: (node) => members.has(node),
          onStep: (step) => {
            tellLost(step);
            options.onServed(step);
          },
        });
  const driver = createDriver({
    node,
    self: key.nodeId,
    microbatches: training.microbatches,
    window: pipelineWindow(stages),
    batch: async (round, step, index) => {
      const { tokens, labels } = await options.batch(round, step, index);
      // Nobody else sees the microbatches of a model held whole.
      if (!next) return { index, entry: tokens, labels, claim: new Uint8Array(0) };
      const content = contentHash(tokens, labels);
      const claim = encodeClaim(makeClaim(network.networkId, { round, step, index, content }, key));
      return { index, entry: tokens, labels, claim };
    },
    onLost: (index, code) => {
      counters.lost++;
      // Of each it would be said again and again.
      if (fraud.refused(code)) return;
      const detail = `microbatch ${index} was refused everywhere (${code}) and does not count`;
      options.events({ type: 'warning', code: 'microbatch-lost', detail });
    },
  });

  return {
    stage,
    stages,
    isDriver: stage === 0,
    router,
    queue,
    work: records,
    isConvicted: (node) => fraud.isConvicted(node),
    fraudDecided: (evidence) => fraud.decided(evidence),
    begin: (round, anew = false) => {
      records?.begin(round, anew);
      if (admitted !== round) for (const guard of Object.values(guards)) guard.reset();
      admitted = round;
      latest = round;
      const { memoryBytes } = options;
      directory.announceSelf({ stage, round, accepting: true, memoryBytes, tokensPerSecond: speed() });
    },
    end: async () => {
      admitted = -1;
      await server?.reset();
    },
    innerStep: async (round, step, signal) => {
      const place = { round, step, learningRate: rate(round, step) };
      if (stages === 1 && training.microbatches === 1) return wholeStep(options, place, signal);
      const taken = await driver.innerStep(place, signal);
      if (taken.ok) tellLost(taken.value);
      return taken;
    },
    evaluate: async (round, batches, signal) => {
      let total = 0;
      for (const { tokens, labels } of batches) {
        const loss = await evaluateStage(node, { round, entry: tokens, labels }, signal);
        if (!loss.ok) return loss;
        total += loss.value;
      }
      return accept(total / batches.length);
    },
    served: () => server?.drivers() ?? new Map(),
    stats: () => ({
      queue: queue.stats(),
      failovers: counters.failovers,
      lostMicrobatches: counters.lost,
      starving: counters.starving,
      boundaryBytesSent: counters.sent,
      boundaryBytesReceived: counters.received,
      boundaryTokens: counters.tokens,
      convictedDrivers: fraud.convicted(),
    }),
    close: () => {
      server?.close();
      fraud.close();
    },
  };
}

/**
 * The same step in one call to the replica instead of four, which cost 2% of a small model's step: one microbatch of a
 * model held whole.
 */
async function wholeStep(
  { batch, replica, key }: PipelineOptions,
  place: { readonly round: number; readonly step: number; readonly learningRate: number },
  signal: AbortSignal,
): Promise<Outcome<StepTaken>> {
  const { round, step, learningRate } = place;
  const microbatch = await batch(round, step, 0);
  if (signal.aborted) return reject('aborted');
  const taken = await replica.trainStep([microbatch], learningRate);
  return accept({ driver: key.nodeId, round, step, ...taken, microbatches: 1, lost: null });
}

function boundaryOf({ model, training }: NetworkManifest): BoundaryShape {
  return {
    tokens: training.batch * training.sequence,
    width: model.width,
    vocabulary: model.vocabulary,
    codec: training.activations,
  };
}

function failoverEvent({ stage, node, code, lastSignMs, acceptedMs }: Failover) {
  return { type: 'failover', stage, node, code, silentMs: acceptedMs - lastSignMs } as const;
}
