/**
 * Scenario `diloco`: four to seven members, up to f of them hostile, and sometimes a node without a vote that joins
 * late, train a small real model through a storm of crashes, partitions and bad links, then in the calm, then with as
 * many down as are tolerated, then together again. Its canary has one twin more than is tolerated.
 */
import { toleratedFailures } from '../../src/consensus/members.ts';
import type { CodecName } from '../../src/diloco/compression/codec.ts';
import type { NodeId } from '../../src/net/transport.ts';
import type { Random } from '../../src/std/random.ts';
import { createCluster, simKeys } from '../cluster.ts';
import { runStorm } from '../faults.ts';
import { between, chance, pick, sample, stream } from '../random.ts';
import { holds, type Scenario, type ScenarioResult } from '../scenario.ts';
import { createDilocoChecker } from './checkers.ts';
import { honestNode } from './honest.ts';
import { type HostileKind, hostileKinds, hostileNode } from './hostile.ts';
import { reexecuteLists, retrain } from './oracle.ts';
import { createTwinChannel } from './twins.ts';
import { createWorld, type Machine, stageOf } from './world.ts';

const stormMs = 45_000;
/** Within which rounds must be closed by all again: timeouts may have grown, so it may take a while. */
const calmMs = 400_000;
const canaryMs = 60_000;

interface Cast {
  readonly members: number;
  /** Nodes without a vote. */
  readonly guests: number;
  readonly stages: number;
  /** Index → kind. */
  readonly hostile: ReadonlyMap<number, HostileKind>;
  readonly machines: readonly Machine[];
  readonly compression: CodecName;
}

function tolerated(members: number): number {
  return toleratedFailures(Array.from({ length: members }, () => ({ weight: 1 })));
}

function drawCast(seed: number): Cast {
  const random = stream(seed, 'cast');
  const members = 4 + (random.uint32() % 4);
  const guests = chance(random, 0.5) ? 1 : 0;
  const most = tolerated(members);
  const number = chance(random, 0.7) ? most : random.uint32() % (most + 1);
  const hostile = sample(random, [...Array(members).keys()], number);
  return {
    members,
    guests,
    stages: 1,
    hostile: new Map(hostile.map((index) => [index, pick(random, hostileKinds)])),
    machines: drawMachines(random, members + guests),
    compression: pick(random, ['f32', 'int8', 'int4', 'sparse']),
  };
}

/**
 * Two stages of two or three members each, each training by itself. A cohort of three bears one member that lies; of
 * two neither may, for what one of them states the other can only contradict.
 */
function stagedCast(seed: number): Cast {
  const random = stream(seed, 'staged cast');
  const stages = 2;
  const members = stages * (2 + (random.uint32() % 2));
  const guests = chance(random, 0.4) ? 1 : 0;
  const isBearable = members > 2 * stages && chance(random, 0.7);
  const hostile = isBearable ? sample(random, [...Array(members).keys()], 1) : [];
  return {
    members,
    guests,
    stages,
    hostile: new Map(hostile.map((index) => [index, pick(random, hostileKinds)])),
    machines: noSlowGuest(drawMachines(random, members + guests), members),
    compression: pick(random, ['f32', 'int8', 'int4', 'sparse']),
  };
}

/** So few members may all be fast, and a node without a vote that needs longer than a whole round never has its say. */
function noSlowGuest(machines: readonly Machine[], members: number): Machine[] {
  const slowest = Math.max(...machines.slice(0, members).map(({ stepMs }) => stepMs));
  return machines.map((machine) => ({ ...machine, stepMs: Math.min(machine.stepMs, slowest) }));
}

function drawMachines(random: Random, count: number): Machine[] {
  return Array.from({ length: count }, () => ({
    stepMs: between(random, 300, 700) * (chance(random, 0.2) ? 2.5 : 1),
    snapshotMs: chance(random, 0.6) ? between(random, 1_000, 10_000) : null,
  }));
}

/** No faults and nobody hostile: for the plain loop as an oracle. */
function quietCast(seed: number): Cast {
  const machines = Array.from({ length: 4 }, () => ({ stepMs: 400, snapshotMs: null }));
  const compression = pick(stream(seed, 'quiet'), ['f32', 'int8', 'int4', 'sparse'] as const);
  return { members: 4, guests: 0, stages: 1, hostile: new Map(), machines, compression };
}

function canaryCast(seed: number): Cast {
  const twins = sample(stream(seed, 'canary'), [0, 1, 2, 3], 2);
  return { ...quietCast(seed), hostile: new Map(twins.map((index) => [index, 'twins'])) };
}

function prepare(seed: number, cast: Cast) {
  const { members, guests, stages, hostile, machines, compression } = cast;
  const keys = simKeys(seed, members + guests);
  const honest = [...keys.keys()].filter((index) => !hostile.has(index));
  const world = createWorld({
    seed,
    keys,
    members,
    stages,
    compression,
    machines,
    checker: (network) => {
      const honestIds = new Set(honest.map((index) => keys[index]!.nodeId));
      return createDilocoChecker(network, honestIds, (index) => stageOf({ network }, index));
    },
  });
  const sides: NodeId[][] = [[], []];
  const separable = [...keys.keys()].filter((index) => hostile.get(index) !== 'twins');
  for (const [i, index] of separable.entries()) sides[i % 2]!.push(keys[index]!.nodeId);
  const enemies = { sides, channel: createTwinChannel(sides.length) };
  const cluster = createCluster({
    seed,
    nodes: keys.length,
    program: (index) => {
      const kind = hostile.get(index);
      return kind ? hostileNode(world, kind, enemies) : honestNode(world);
    },
  });
  return { world, cluster, honest, keys };
}

type Prepared = ReturnType<typeof prepare>;

/** All these nodes close so many rounds more, end within one round of each other, and are all heard. */
async function mustProgress(
  { world, cluster, keys }: Prepared,
  nodes: readonly number[],
  rounds: number,
  what: string,
): Promise<void> {
  const roundOf = (index: number) => world.peers.get(index)?.position.round ?? -1;
  const listed = (index: number) => world.checker.lastListed(keys[index]!.nodeId);
  const from = world.checker.newestRound();
  const isDone = () => {
    const at = nodes.map(roundOf);
    const isClose = Math.max(...at) - Math.min(...at) <= 1;
    return isClose && Math.min(...at) >= from + rounds && nodes.every((index) => listed(index) >= from);
  };
  await cluster.run(calmMs, isDone);
  holds(isDone(), 'progress', () => {
    const states = nodes.map((index) => {
      const { height, decidedHeight, active } = world.peers.get(index)!.ledger.consensus.status();
      const at = `round ${roundOf(index)}, listed in ${listed(index)}, height ${decidedHeight}/${height}`;
      return `${index} at ${at}${active ? ' active' : ''}`;
    });
    return `${what}: wanted ${rounds} rounds after ${from}; ${states.join('; ')}`;
  });
}

async function run(seed: number, cast: Cast): Promise<ScenarioResult> {
  const prepared = prepare(seed, cast);
  const { cluster, honest } = prepared;
  const spare = tolerated(cast.members) - cast.hostile.size;
  for (let index = 0; index < cast.members; index++) await cluster.start(index);
  // A guest comes with the storm, as if it were started again.
  const downMax = cast.guests + pick(stream(seed, 'mortality'), [spare, spare, honest.length - 1]);
  await runStorm(cluster, { durationMs: stormMs, mortal: honest, downMax });
  await mustProgress(prepared, honest, 2, 'everybody in the calm');
  const down = honest.filter((index) => index < cast.members).slice(0, spare);
  for (const index of down) cluster.crash(index);
  if (down.length > 0) {
    const rest = honest.filter((index) => !down.includes(index));
    await mustProgress(prepared, rest, 2, 'with as many down as tolerated');
    for (const index of down) await cluster.start(index);
    await mustProgress(prepared, honest, 2, 'after their return');
  }
  return summary(prepared, cast);
}

async function runQuiet(seed: number, cast: Cast): Promise<ScenarioResult> {
  const prepared = prepare(seed, cast);
  for (let index = 0; index < cast.members; index++) await prepared.cluster.start(index);
  await mustProgress(prepared, prepared.honest, 4, 'without faults');
  await retrain(prepared.world);
  return summary(prepared, cast);
}

async function runCanary(seed: number, cast: Cast): Promise<ScenarioResult> {
  const prepared = prepare(seed, cast);
  for (let index = 0; index < cast.members; index++) await prepared.cluster.start(index);
  await prepared.cluster.run(canaryMs);
  return summary(prepared, cast);
}

async function summary({ world, cluster }: Prepared, cast: Cast): Promise<ScenarioResult> {
  const rounds = await reexecuteLists(world);
  const hostile = [...cast.hostile].map(([index, kind]) => `${index} ${kind}`).join(', ') || 'none';
  const guests = cast.guests > 0 ? ` and ${cast.guests} guest` : '';
  const stages = cast.stages > 1 ? ` of ${cast.stages} stages` : '';
  return {
    summary: `${cast.members} members${stages}${guests}, ${cast.compression}, hostile: ${hostile}; ${rounds} rounds`,
    trace: cluster.network.trace(),
    numbers: { rounds, messages: cluster.network.messages() },
  };
}

export const dilocoScenario: Scenario = {
  name: 'diloco',
  description: 'training through storms with up to f hostile members: one history, progress, catch-up',
  // Each eighth seed has no faults, and a plain loop as its oracle.
  run: (seed) => (seed % 8 === 0 ? runQuiet(seed, quietCast(seed)) : run(seed, drawCast(seed))),
};

export const stagesScenario: Scenario = {
  name: 'diloco-stages',
  description:
    'rounds of two stages, closed together: one history for each cohort, progress under kills, catch-up',
  run: (seed) => run(seed, stagedCast(seed)),
};

export const dilocoCanary: Scenario = {
  name: 'diloco-canary',
  description: 'f + 1 colluding twins: the state must fork for some seed',
  canary: true,
  run: (seed) => runCanary(seed, canaryCast(seed)),
};
