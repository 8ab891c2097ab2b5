/**
 * Scenario `consensus`: four to seven members of whom up to f are hostile, through a storm of crashes, partitions and
 * bad links, then calm. Agreement must hold throughout, progress must come with the calm, and all must catch up. Its
 * canary makes one member more hostile than is tolerated, and must break agreement for some seed.
 */
import { toleratedFailures } from '../../src/consensus/members.ts';
import type { Member } from '../../src/consensus/types.ts';
import type { NodeId } from '../../src/net/transport.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { createCluster, simKeys } from '../cluster.ts';
import { runStorm } from '../faults.ts';
import { idealSignatures } from '../ideal-signatures.ts';
import { pick, sample, stream } from '../random.ts';
import { holds, type Scenario, type ScenarioResult } from '../scenario.ts';
import { createConsensusChecker } from './checkers.ts';
import { type ConsensusWorld, honestMember } from './honest.ts';
import { type HostileKind, hostileKinds, hostileMember } from './hostile.ts';

const stormMs = 120_000;
/** After the storm, within which some rounds must be decided by all: timeouts have grown, so it takes a while. */
const calmMs = 400_000;
const calmRounds = 3;

interface Cast {
  readonly count: number;
  /** Index → kind. */
  readonly hostile: ReadonlyMap<number, HostileKind>;
}

function drawCast(seed: number): Cast {
  const random = stream(seed, 'cast');
  const count = 4 + (random.uint32() % 4);
  const most = toleratedFailures(Array.from({ length: count }, () => ({ weight: 1 })));
  const number = random.uint32() % (most + 1);
  const indices = sample(random, [...Array(count).keys()], number);
  return {
    count,
    hostile: new Map(
      indices.map((index) => [index, pick(random, [...hostileKinds, 'twins', 'twins', 'double'] as const)]),
    ),
  };
}

function canaryCast(seed: number): Cast {
  const random = stream(seed, 'canary');
  const indices = sample(random, [0, 1, 2, 3], 2);
  return { count: 4, hostile: new Map(indices.map((index) => [index, 'twins'])) };
}

function prepare(seed: number, cast: Cast) {
  const networkId = sha256(utf8(`simulated network ${seed}`));
  const keys = simKeys(seed, cast.count);
  const members: Member[] = keys.map(({ nodeId, publicKey }) => ({ nodeId, publicKey, weight: 1 }));
  const world: ConsensusWorld = {
    networkId,
    members,
    signatures: idealSignatures(keys),
    checker: createConsensusChecker(networkId),
    timing: { deltaMs: 500, deltaMsMax: 8_000, retransmitMsMax: 8_000 },
    roundMs: [4_000, 9_000],
    replicas: new Map(),
    logs: new Map(),
  };
  const honest = keys.map((_, index) => index).filter((index) => !cast.hostile.has(index));
  const sides: NodeId[][] = [[], []];
  for (const [i, index] of honest.entries()) sides[i % 2]!.push(keys[index]!.nodeId);
  for (const index of cast.hostile.keys()) for (const side of sides) side.push(keys[index]!.nodeId);
  const cluster = createCluster({
    seed,
    nodes: cast.count,
    program: (index) => {
      const kind = cast.hostile.get(index);
      return kind ? hostileMember(world, kind, sides) : honestMember(world);
    },
  });
  return { world, cluster, honest };
}

async function run(seed: number, cast: Cast, storm: boolean): Promise<ScenarioResult> {
  const { world, cluster, honest } = prepare(seed, cast);
  for (let index = 0; index < cast.count; index++) await cluster.start(index);
  if (storm) await runStorm(cluster, { durationMs: stormMs, mortal: honest, downMax: honest.length });
  const roundsOf = (index: number) => world.logs.get(index)?.length ?? 0;
  const target = world.checker.rounds() + calmRounds;
  await cluster.run(calmMs, () => honest.every((index) => roundsOf(index) >= target));
  holds(
    honest.every((index) => roundsOf(index) >= target),
    'progress',
    () => {
      const heights = honest.map(
        (index) => `${index}: ${JSON.stringify(world.replicas.get(index)?.status())}`,
      );
      return `${honest.map(roundsOf)} rounds, wanted ${target} within ${calmMs} ms of calm; ${heights.join('; ')}`;
    },
  );
  const hostile = [...cast.hostile].map(([index, kind]) => `${index} ${kind}`).join(', ') || 'none';
  return {
    summary: `${cast.count} members, hostile: ${hostile}; ${world.checker.rounds()} rounds`,
    trace: cluster.network.trace(),
    numbers: {
      rounds: world.checker.rounds(),
      heights: Math.max(...honest.map((index) => world.replicas.get(index)!.status().decidedHeight)),
      messages: cluster.network.messages(),
    },
  };
}

export const consensusScenario: Scenario = {
  name: 'consensus',
  description:
    'agreement through storms with up to f hostile members, progress and catch-up in the calm after',
  run: (seed) => run(seed, drawCast(seed), true),
};

export const consensusCanary: Scenario = {
  name: 'consensus-canary',
  description: 'f + 1 colluding twins: agreement must break for some seed',
  canary: true,
  run: (seed) => run(seed, canaryCast(seed), false),
};
