/**
 * Whose gradients each optimizer step of an honest replica is made of. It stands between the replica and the code under
 * test and writes down what goes in; of every step it checks that the sum holds exactly the microbatches that the
 * Driver committed, once, by computing them again from what was written down. It decides nothing.
 */
import type { ReplicaSnapshot, StageReplica } from '../../src/diloco/replica.ts';
import { trainProtocol } from '../../src/net/protocol.ts';
import type { NodeId, Transport } from '../../src/net/transport.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import type { NetworkManifest } from '../../src/peer/network.ts';
import { decodeClaim } from '../../src/pipeline/claim.ts';
import { decodeTrainRequest } from '../../src/pipeline/messages.ts';
import { inTurn } from '../../src/std/in-turn.ts';
import type { NodeEnv } from '../cluster.ts';
import type { Surveyed } from '../diloco/world.ts';
import { freshReplica } from '../diloco/world.ts';
import { holds, Violation } from '../scenario.ts';
import { checkEvidence, type Keeper, type MadeStep } from './evidence.ts';
import { isSumOf, type Kept, shortened } from './step-sums.ts';

export interface Ledger {
  survey(env: NodeEnv, replica: StageReplica): Surveyed;
  /** At the end: steps that a stage did not take, and nobody said so; and evidence that is not of what was made. */
  finish(keepers: readonly Keeper[]): Promise<void>;
  /** Steps that Drivers took. */
  steps(): number;
  /** Of stages after the first. */
  servedSteps(): number;
  /** Steps whose evidence was looked at in the end. */
  evidence(): number;
  /** By its code: warnings, and `failover`. */
  events(): Readonly<Record<string, number>>;
}

/** A step as its Driver began it, in one of the Driver's lives. */
interface DriverStep {
  readonly driver: NodeId;
  readonly life: number;
  readonly round: number;
  readonly step: number;
  readonly ids: readonly string[];
  /** By stage, who has taken it. */
  readonly takenBy: Map<number, string[]>;
}

interface Place {
  readonly round: number;
  readonly step: number;
}

export interface LedgerOptions {
  readonly network: NetworkManifest;
  /** Node ids that keep to the rules. */
  readonly honest: ReadonlySet<NodeId>;
}

interface LedgerState extends LedgerOptions {
  /** By `driver round step`, one for each time that its Driver committed it. */
  readonly commits: Map<string, DriverStep[]>;
  readonly lives: Map<NodeId, number>;
  readonly events: Map<string, number>;
  /** `driver round step` of which somebody said that a later stage did not take it. */
  readonly reported: Set<string>;
  /** By Driver: lost microbatches told since its last step. */
  readonly lost: Map<NodeId, number>;
  readonly recompute: (stage: number) => Promise<StageReplica>;
  readonly turn: ReturnType<typeof inTurn>;
  /** Steps that each node has made in its present life. */
  readonly made: Map<NodeId, MadeStep[]>;
  driverSteps: number;
  servedSteps: number;
  evidence: number;
}

export function createLedger(options: LedgerOptions): Ledger {
  const shadows = new Map<number, Promise<StageReplica>>();
  const l: LedgerState = {
    ...options,
    commits: new Map(),
    lives: new Map(),
    events: new Map(),
    reported: new Set(),
    lost: new Map(),
    recompute: (stage) => {
      const shadow = shadows.get(stage) ?? freshReplica(options.network, stage);
      shadows.set(stage, shadow);
      return shadow;
    },
    turn: inTurn(),
    made: new Map(),
    driverSteps: 0,
    servedSteps: 0,
    evidence: 0,
  };
  return {
    survey: (env, replica) => survey(l, env, replica),
    finish: async (keepers) => {
      checkReports(l);
      for (const keeper of keepers)
        l.evidence += await checkEvidence(l.network, keeper, l.made.get(keeper.nodeId) ?? []);
    },
    evidence: () => l.evidence,
    steps: () => l.driverSteps,
    servedSteps: () => l.servedSteps,
    events: () => Object.fromEntries(l.events),
  };
}

function survey(l: LedgerState, env: NodeEnv, real: StageReplica): Surveyed {
  l.lives.set(env.key.nodeId, env.life);
  l.lost.set(env.key.nodeId, 0);
  l.made.set(env.key.nodeId, []);
  const places = new Map<string, Place>();
  return {
    replica: observed(l, env, real, places),
    transport: listening(l, env.transport, places),
    events: (event) => hear(l, env, event),
  };
}

/** Notes for each microbatch that comes in which step of its Driver it belongs to. */
function listening(l: LedgerState, transport: Transport, places: Map<string, Place>): Transport {
  const { model, training, networkId } = l.network;
  const shape = {
    tokens: training.batch * training.sequence,
    width: model.width,
    vocabulary: model.vocabulary,
    codec: training.activations,
  };
  const note = (message: Uint8Array, path: (driver: NodeId) => string) => {
    const decoded = decodeTrainRequest(message, shape);
    const claim = decoded.ok ? decodeClaim(networkId, decoded.value.claim) : decoded;
    if (!decoded.ok || !claim.ok) return;
    const { round, step, index } = decoded.value;
    const name = `${path(claim.value.nodeId)} ${index}`;
    const known = places.get(name);
    const isNewer = !known || round > known.round || (round === known.round && step >= known.step);
    if (isNewer) places.set(name, { round, step });
  };
  return {
    ...transport,
    handle: (protocol, handler) =>
      transport.handle(protocol, (from, message, signal, progress) => {
        if (protocol.id === trainProtocol.id) note(message, (driver) => `${from}/${driver}`);
        return handler(from, message, signal, progress);
      }),
    // A Driver's own path bears its name.
    request: (peer, protocol, message, signal, onFrame) => {
      if (protocol.id === trainProtocol.id) note(message, (driver) => driver);
      return transport.request(peer, protocol, message, signal, onFrame);
    },
  };
}

function observed(
  l: LedgerState,
  env: NodeEnv,
  real: StageReplica,
  places: ReadonlyMap<string, Place>,
): StageReplica {
  const self = env.key.nodeId;
  const paths = new Map<string, Map<string, Kept>>();
  const prepared = new Map<string, readonly string[]>();
  /** The replica before each of its steps: other paths' steps may come between a microbatch and its own. */
  const states = new Map<string, ReplicaSnapshot>();
  const taken = new Set<string>();
  const keep = (path: string, id: string, kept: Kept) =>
    paths.set(path, (paths.get(path) ?? new Map()).set(id, kept));
  const check = async (work: () => Promise<void> | void) => {
    try {
      await work();
    } catch (violation) {
      env.report(violation);
    }
  };
  return {
    ...real,
    breakChain: async () => {},
    forward: async (call) => {
      const entry = call.entry.slice();
      const result = await real.forward(call);
      if (result.ok) keep(call.path, call.id, { entry });
      return result;
    },
    backward: async (call) => {
      const entry = call.entry?.slice();
      const target = call.target.slice();
      const { step: madeAt } = await real.position();
      const result = await real.backward(call);
      if (!result.ok) return result;
      const known = entry ? { entry } : paths.get(call.path)?.get(call.id);
      if (known) keep(call.path, call.id, { ...known, target, madeAt });
      return result;
    },
    discard: async (call) => {
      await real.discard(call);
      if (!call.ids) paths.delete(call.path);
      for (const id of call.ids ?? []) paths.get(call.path)?.delete(id);
    },
    prepareStep: async (call) => {
      const result = await real.prepareStep(call);
      if (!result.ok) return result;
      prepared.set(call.path, call.ids);
      if (call.path !== self) return result;
      const place = places.get(`${self} ${call.ids[0]}`);
      if (place) commit(l, { driver: self, life: env.life, ...place, ids: call.ids, takenBy: new Map() });
      return result;
    },
    applyStep: (call) =>
      env.during(
        l.turn(async () => {
          const before = await real.snapshot();
          const result = await real.applyStep(call);
          if (!result.ok) return result;
          const ids = prepared.get(call.path) ?? [];
          const { round, step } = before.position;
          if (!states.has(`${round}/0`) && step === 0) states.clear();
          states.set(`${round}/${step}`, before);
          const microbatches = result.value.map((summed) => ({
            ...summed,
            kept: paths.get(call.path)?.get(summed.id),
            at: states.get(`${round}/${summed.summedAt}`),
          }));
          await check(async () => {
            const stage = (await real.info()).stage.index;
            const shadow = await l.recompute(stage);
            const { beta1 } = l.network.training;
            const after = await real.snapshot();
            const made = await isSumOf({ before, after, shadow, call, ids, microbatches, beta1 });
            const driver = call.path.split('/').at(-1)!;
            l.made.get(self)?.push({ round, driver, microbatches: made });
            isCommitted(l, { env, stage, path: call.path, ids, taken, places, before });
          });
          for (const id of ids) paths.get(call.path)?.delete(id);
          prepared.delete(call.path);
          return result;
        }),
      ),
  };
}

interface StepSeen {
  readonly env: NodeEnv;
  readonly stage: number;
  readonly path: string;
  readonly ids: readonly string[];
  /** `path round step` of this life. */
  readonly taken: Set<string>;
  readonly places: ReadonlyMap<string, Place>;
  readonly before: Awaited<ReturnType<StageReplica['snapshot']>>;
}

/** The ids are those that the Driver committed for its step, and this stage has not taken it before. */
function isCommitted(l: LedgerState, seen: StepSeen): void {
  const { env, stage, path, ids, taken, places, before } = seen;
  const self = env.key.nodeId;
  const [from, driver] = path === self ? [self, self] : (path.split('/') as [NodeId, NodeId]);
  const { round } = before.position;
  const at = places.get(`${path} ${ids[0]}`);
  if (!at) throw new Violation('counted-once', `node ${env.index} takes a step that nobody sent`);
  if (path !== self) l.servedSteps += 1;
  for (const id of ids) {
    const place = places.get(`${path} ${id}`);
    holds(place?.round === round && place.step === at.step, 'counted-once', () => {
      return `node ${env.index}: ${id} of ${shortened(path)} is of another step (${JSON.stringify([place, at, round])})`;
    });
  }
  const name = `${driver} ${at.round} ${at.step}`;
  const where = `node ${env.index} of stage ${stage}, step ${at.step} of round ${at.round} for ${shortened(path)}`;
  holds(!taken.has(name), 'counted-once', () => `${where}: taken twice`);
  taken.add(name);
  if (!l.honest.has(from) || !l.honest.has(driver)) return;
  const commits = l.commits.get(name) ?? [];
  const committed = commits.findLast((one) => one.ids.join() === ids.join());
  holds(committed !== undefined, 'counted-once', () => {
    return `${where}: made of ${ids.join()}, its Driver committed ${commits.map((one) => one.ids.join()).join(' or ')}`;
  });
  const others = committed.takenBy.get(stage) ?? [];
  // A Driver that was started again may make a step again, elsewhere.
  committed.takenBy.set(stage, [...others, `${env.index}`]);
  holds(others.length === 0 || commits.length > 1, 'counted-once', () => {
    return `${where}: taken by node ${others[0]}, too`;
  });
  if (path !== self) return;
  l.driverSteps += 1;
  const missing = l.network.training.microbatches - ids.length;
  const told = l.lost.get(self) ?? 0;
  l.lost.set(self, 0);
  holds(missing <= told, 'nothing-lost-silently', () => `${where}: ${missing} left out, ${told} told`);
}

function commit(l: LedgerState, step: DriverStep): void {
  const name = `${step.driver} ${step.round} ${step.step}`;
  const before = l.commits.get(name) ?? [];
  // Prepared again, for instance after a failover: the last one counts.
  const others = before.filter((one) => one.life !== step.life || one.takenBy.size > 0);
  l.commits.set(name, [...others, step]);
}

function hear(l: LedgerState, env: NodeEnv, event: NodeEvent): void {
  const code = event.type === 'warning' ? event.code : event.type === 'failover' ? 'failover' : undefined;
  if (code === undefined) return;
  l.events.set(code, (l.events.get(code) ?? 0) + 1);
  const self = env.key.nodeId;
  if (code === 'microbatch-lost') l.lost.set(self, (l.lost.get(self) ?? 0) + 1);
  if (event.type !== 'warning' || code !== 'step-lost') return;
  const [, step, round, driver] = /^step (\d+) of round (\d+) of Driver (\w+)/.exec(event.detail) ?? [];
  l.reported.add(`${driver} ${round} ${step}`);
}

/** Every step of an honest Driver was taken by one replica of each stage, or somebody said that it was not. */
function checkReports(l: LedgerState): void {
  // What a hostile replica took is not seen here.
  if (l.network.members.some(({ nodeId }) => !l.honest.has(nodeId))) return;
  for (const [name, commits] of l.commits)
    for (const { driver, life, takenBy, round, step } of commits) {
      // Of what was cut off by a crash nobody can be told, and what a Driver did not take itself is no step.
      if (l.lives.get(driver) !== life || !takenBy.has(0) || !l.honest.has(driver)) continue;
      for (let stage = 1; stage < l.network.training.stages; stage++)
        holds(
          takenBy.has(stage) || l.reported.has(`${driver.slice(0, 8)} ${round} ${step}`),
          'nothing-lost-silently',
          () => `stage ${stage} did not take step ${name}, and nobody said so`,
        );
    }
}
