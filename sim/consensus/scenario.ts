/**
 * Scenario `consensus`: up to seven members of whom up to f are hostile, through a storm of crashes, partitions and bad
 * links, then calm. Agreement must hold throughout; progress must come with the calm, with as many members down as are
 * tolerated, and for those who return. Its canary has one hostile member more than is tolerated, and must break
 * agreement for some seed.
 */
import { toleratedFailures } from '../../src/consensus/members.ts';
import type { Member } from '../../src/consensus/types.ts';
import type { NodeId } from '../../src/net/transport.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { createCluster, simKeys } from '../cluster.ts';
import { runStorm } from '../faults.ts';
import { idealSignatures } from '../ideal-signatures.ts';
import { chance, pick, sample, stream } from '../random.ts';
import { holds, type Scenario, type ScenarioResult } from '../scenario.ts';
import { createConsensusChecker } from './checkers.ts';
import { type ConsensusWorld, honestMember } from './honest.ts';
import { type HostileKind, hostileKinds, hostileMember } from './hostile.ts';

const stormMs = 120_000;
/** Within which some rounds must be decided by all: timeouts may have grown, so it may take a while. */
const calmMs = 400_000;
const calmRounds = 3;

interface Cast {
  readonly weights: readonly number[];
  /** Index → kind. */
  readonly hostile: ReadonlyMap<number, HostileKind>;
}

function drawCast(seed: number): Cast {
  const random = stream(seed, 'cast');
  const count = chance(random, 0.15) ? 1 + (random.uint32() % 3) : 4 + (random.uint32() % 4);
  const unequal = chance(random, 0.2);
  const weights = Array.from({ length: count }, () => (unequal ? 1 + (random.uint32() % 3) : 1));
  const number = random.uint32() % (tolerated(weights) + 1);
  const indices = sample(random, [...weights.keys()], number);
  const kinds = [...hostileKinds, 'twins', 'twins', 'double'] as const;
  return { weights, hostile: new Map(indices.map((index) => [index, pick(random, kinds)])) };
}

function tolerated(weights: readonly number[]): number {
  return toleratedFailures(weights.map((weight) => ({ weight })));
}

function canaryCast(seed: number): Cast {
  const random = stream(seed, 'canary');
  const indices = sample(random, [0, 1, 2, 3], 2);
  return { weights: [1, 1, 1, 1], hostile: new Map(indices.map((index) => [index, 'twins'])) };
}

function prepare(seed: number, cast: Cast) {
  const networkId = sha256(utf8(`simulated network ${seed}`));
  const keys = simKeys(seed, cast.weights.length);
  const members: Member[] = keys.map(({ nodeId, publicKey }, i) => {
    return { nodeId, publicKey, weight: cast.weights[i]! };
  });
  const world: ConsensusWorld = {
    networkId,
    members,
    signatures: idealSignatures(keys),
    checker: createConsensusChecker(networkId),
    timing: { deltaMs: 500, deltaMsMax: 8_000, retransmitMsMax: 8_000 },
    roundMs: [4_000, 9_000],
    // Narrow bounds in half of the seeds, so that they are met.
    limits: seed % 2 === 0 ? { heightsAheadMax: 3, answerHeightsMax: 2 } : {},
    replicas: new Map(),
    logs: new Map(),
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

  for (let index = 0; index < cast.weights.length; index++) await cluster.start(index);
  if (storm) await runStorm(cluster, { durationMs: stormMs, mortal: honest, downMax: honest.length });
  await mustProgress(honest, 'everybody in the calm');
  if (storm) {
    const down = honest.slice(0, tolerated(cast.weights) - cast.hostile.size);
    for (const index of down) cluster.crash(index);
    await mustProgress(honest.slice(down.length), 'with as many down as tolerated');
    for (const index of down) await cluster.start(index);
    await mustProgress(honest, 'after their return');
  }
  const hostile = [...cast.hostile].map(([index, kind]) => `${index} ${kind}`).join(', ') || 'none';
  return {
    summary: `weights ${cast.weights}, hostile: ${hostile}; ${world.checker.rounds()} rounds`,
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
