/**
 * Scenario `consensus`: up to eight nodes, of whom others vote in every epoch and up to f of them are hostile, through a
 * storm of crashes, partitions and bad links, then calm. Agreement must hold throughout; progress must come with the calm, with as many members down as are
 * tolerated, and for those who return. Its canary has one hostile member more than is tolerated, and must break
 * agreement for some seed.
 */
import { verifyEpochs } from '../../src/consensus/checkpoint.ts';
import type { Member } from '../../src/consensus/types.ts';
import type { NodeId } from '../../src/net/transport.ts';
import { equalBytes, utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { createCluster, simKeys } from '../cluster.ts';
import { runStorm } from '../faults.ts';
import { idealSignatures } from '../ideal-signatures.ts';
import { chance, pick, sample, stream } from '../random.ts';
import { holds, type Scenario, type ScenarioResult } from '../scenario.ts';
import { createConsensusChecker } from './checkers.ts';
import { type ConsensusWorld, honestMember } from './honest.ts';
import { type HostileKind, hostileKinds, hostileMember } from './hostile.ts';
import { createSchedule } from './schedule.ts';

const stormMs = 120_000;
/** Within which some rounds must be decided by all: timeouts may have grown, so it may take a while. */
const calmMs = 400_000;
const calmRounds = 3;

interface Cast {
  readonly count: number;
  /** Index → kind. */
  readonly hostile: ReadonlyMap<number, HostileKind>;
  /** The epochs' members, in turn: [index, weight]. */
  readonly lists: readonly (readonly (readonly [index: number, weight: number])[])[];
  /** Of an epoch. */
  readonly rounds: number;
}

function drawCast(seed: number): Cast {
  const random = stream(seed, 'cast');
  const few = chance(random, 0.15);
  const count = few ? 1 + (random.uint32() % 3) : 4 + (random.uint32() % 5);
  const nodes = Array.from({ length: count }, (_, index) => index);
  const bad = sample(random, nodes, few ? 0 : random.uint32() % (Math.floor((count - 1) / 3) + 2));
  const kinds = [...hostileKinds, 'twins', 'twins', 'double'] as const;
  const hostile = new Map(bad.map((index) => [index, pick(random, kinds)]));
  const unequal = chance(random, 0.2);
  const fixed = chance(random, 0.2);
  const drawList = () => {
    // Mostly enough members to tolerate one, now and then a few that must all be up.
    const least = few || chance(random, 0.1) ? 1 : 4;
    for (let attempt = 0; attempt < 50; attempt++) {
      const size = least + (random.uint32() % (count - least + 1));
      const list = sample(random, nodes, size).map((index) => {
        return [index, unequal ? 1 + (random.uint32() % 3) : 1] as const;
      });
      if (tolerates(list, (index) => hostile.has(index))) return list;
    }
    return nodes.filter((index) => !hostile.has(index)).map((index) => [index, 1] as const);
  };
  const lists = Array.from({ length: fixed ? 1 : 2 + (random.uint32() % 3) }, drawList);
  return { count, hostile, lists, rounds: fixed ? Number.POSITIVE_INFINITY : 1 + (random.uint32() % 4) };
}

/** Whether less than a third of the weight is faulty. */
function tolerates(list: Cast['lists'][number], faulty: (index: number) => boolean): boolean {
  const total = list.reduce((sum, [, weight]) => sum + weight, 0);
  const lost = list.reduce((sum, [index, weight]) => sum + (faulty(index) ? weight : 0), 0);
  return 3 * lost < total;
}

/** Honest nodes that may be down beside the hostile ones, whatever epoch it is. */
function dispensable(cast: Cast, honest: readonly number[]): number[] {
  const down: number[] = [];
  for (const index of honest) {
    const faulty = (one: number) => one === index || down.includes(one) || cast.hostile.has(one);
    if (down.length < honest.length - 1 && cast.lists.every((list) => tolerates(list, faulty)))
      down.push(index);
  }
  return down;
}

function canaryCast(seed: number): Cast {
  const random = stream(seed, 'canary');
  const indices = sample(random, [0, 1, 2, 3], 2);
  const everybody = [0, 1, 2, 3].map((index) => [index, 1] as const);
  const hostile = new Map(indices.map((index) => [index, 'twins' as const]));
  return { count: 4, lists: [everybody], hostile, rounds: 3 };
}

function prepare(seed: number, cast: Cast) {
  const networkId = sha256(utf8(`simulated network ${seed}`));
  const keys = simKeys(seed, cast.count);
  const lists = cast.lists.map((list): Member[] =>
    list.map(([index, weight]) => {
      const { nodeId, publicKey } = keys[index]!;
      return { nodeId, publicKey, weight };
    }),
  );
  const schedule = createSchedule(lists, cast.rounds);
  const signatures = idealSignatures(keys);
  const hostile = new Set([...cast.hostile.keys()].map((index) => keys[index]!.nodeId));
  const world: ConsensusWorld = {
    networkId,
    schedule,
    signatures,
    checker: createConsensusChecker({ networkId, schedule, signatures, hostile }),
    timing: { deltaMs: 500, deltaMsMax: 8_000, retransmitMsMax: 8_000 },
    roundMs: [4_000, 9_000],
    // Narrow bounds in half of the seeds, so that they are met.
    limits:
      seed % 2 === 0
        ? {
            heightsAheadMax: 3,
            answerHeightsMax: 2,
            epochsKept: 1,
            earlyMessagesMax: 4,
          }
        : {},
    replicas: new Map(),
    logs: new Map(),
    jumps: 0,
  };
  const honest = keys.map((_, index) => index).filter((index) => !cast.hostile.has(index));
  const sides: NodeId[][] = [[], []];
  for (const [i, index] of honest.entries()) sides[i % 2]!.push(keys[index]!.nodeId);
  for (const index of cast.hostile.keys()) for (const side of sides) side.push(keys[index]!.nodeId);
  const cluster = createCluster({
    seed,
    nodes: keys.length,
    program: (index) => {
      const kind = cast.hostile.get(index);
      return kind ? hostileMember(world, kind, sides) : honestMember(world);
    },
  });
  return { world, cluster, honest };
}

/** The ends of epochs that a node keeps lead a newcomer from the first members to those of now. */
async function checkEnds(world: ConsensusWorld, index: number): Promise<void> {
  const replica = world.replicas.get(index)!;
  const ends = await replica.endsSince(0);
  const verified = verifyEpochs(world.schedule.start, ends, world);
  holds(verified.ok, 'verifiable-ends', () => `node ${index}: ${!verified.ok && verified.code}`);
  const { epoch, root } = replica.start();
  const there = verified.value.epoch !== epoch || equalBytes(verified.value.root, root);
  holds(there, 'verifiable-ends', () => `node ${index} is not where its ends lead`);
}

async function run(seed: number, cast: Cast, storm: boolean): Promise<ScenarioResult> {
  const { world, cluster, honest } = prepare(seed, cast);
  const roundsOf = (index: number) => world.logs.get(index)?.length ?? 0;
  const mustProgress = async (nodes: readonly number[], what: string) => {
    const target = world.checker.rounds() + calmRounds;
    await cluster.run(calmMs, () => nodes.every((index) => roundsOf(index) >= target));
    holds(
      nodes.every((index) => roundsOf(index) >= target),
      'progress',
      () => {
        const states = nodes.map(
          (index) => `${index}: ${JSON.stringify(world.replicas.get(index)?.status())}`,
        );
        return `${what}: ${nodes.map(roundsOf)} rounds, wanted ${target}; ${states.join('; ')}`;
      },
    );
  };

  for (let index = 0; index < cast.count; index++) await cluster.start(index);
  if (storm) await runStorm(cluster, { durationMs: stormMs, mortal: honest, downMax: honest.length });
  await mustProgress(honest, 'everybody in the calm');
  if (storm) {
    const down = dispensable(cast, honest);
    for (const index of down) cluster.crash(index);
    const up = honest.filter((index) => !down.includes(index));
    await mustProgress(up, 'with as many down as tolerated');
    for (const index of down) await cluster.start(index);
    await mustProgress(honest, 'after their return');
  }
  for (const index of honest) await checkEnds(world, index);
  const hostile = [...cast.hostile].map(([index, kind]) => `${index} ${kind}`).join(', ') || 'none';
  return {
    summary: `${describe(cast)}, hostile: ${hostile}; ${world.checker.rounds()} rounds in ${1 + world.checker.epochs()} epochs, ${world.jumps} jumps`,
    trace: cluster.network.trace(),
    numbers: {
      rounds: world.checker.rounds(),
      epochs: 1 + world.checker.epochs(),
      jumps: world.jumps,
      accusations: world.checker.accusations(),
      messages: cluster.network.messages(),
    },
  };
}

function describe({ count, lists, rounds }: Cast): string {
  const epochs = Number.isFinite(rounds) ? `epochs of ${rounds} rounds` : 'one epoch';
  return `${count} nodes, members ${lists.map((list) => list.map(([index]) => index).join('')).join(' ')}, ${epochs}`;
}

export const consensusScenario: Scenario = {
  name: 'consensus',
  description:
    'agreement through storms and changes of members, up to f hostile; progress and catch-up in the calm after',
  run: (seed) => run(seed, drawCast(seed), true),
};

export const consensusCanary: Scenario = {
  name: 'consensus-canary',
  description: 'f + 1 colluding twins: agreement must break for some seed',
  canary: true,
  run: (seed) => run(seed, canaryCast(seed), false),
};
