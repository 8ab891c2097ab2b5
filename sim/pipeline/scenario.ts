/**
 * Scenario `pipeline`: two to four stages of one to three replicas train a small real model through each other, the
 * product's own peers in virtual time. A storm kills nodes, lets them hang in two ways, cuts and degrades the network; in
 * some seeds one neighbour is hostile. Then it is calm, and all must go on.
 */
import type { CodecName } from '../../src/diloco/compression/codec.ts';
import { createCluster, simKeys } from '../cluster.ts';
import { createDilocoChecker } from '../diloco/checkers.ts';
import { honestNode } from '../diloco/honest.ts';
import { reexecuteLists } from '../diloco/oracle.ts';
import { createWorld, type Machine } from '../diloco/world.ts';
import { between, chance, pick, stream } from '../random.ts';
import { holds, type Scenario, type ScenarioResult } from '../scenario.ts';
import { hostileNeighbour, type NeighbourKind, neighbourKinds } from './hostile.ts';
import { createLedger, type Ledger } from './ledger.ts';
import { runPipelineStorm } from './storm.ts';

const stormMs = 30_000;
/** Within which all must close rounds again. */
const calmMs = 400_000;

interface Cast {
  readonly stages: number;
  readonly replicas: number;
  readonly microbatches: number;
  readonly hostile: { readonly index: number; readonly kind: NeighbourKind } | undefined;
  readonly machines: readonly Machine[];
  readonly compression: CodecName;
}

function drawCast(seed: number): Cast {
  const random = stream(seed, 'pipeline cast');
  const stages = 2 + (random.uint32() % 3);
  const replicas = 1 + (random.uint32() % 3);
  const nodes = stages * replicas;
  // A stage whose only replica is hostile cannot be trained.
  const hostile =
    replicas > 1 && chance(random, 0.5)
      ? { index: random.uint32() % nodes, kind: pick(random, neighbourKinds) }
      : undefined;
  return {
    stages,
    replicas,
    microbatches: 2 + (random.uint32() % 3),
    hostile,
    machines: Array.from({ length: nodes }, () => {
      const slow = chance(random, 0.2) ? 4 : 1;
      const stepMs = slow * between(random, 30, 90);
      // What no disk holds cannot come back when a whole stage is gone.
      return { stepMs, forwardMs: stepMs / 3, snapshotMs: between(random, 1_000, 4_000) };
    }),
    compression: pick(random, ['f32', 'int8', 'int4']),
  };
}

function prepare(seed: number, cast: Cast) {
  const { stages, replicas, microbatches, hostile, machines, compression } = cast;
  const members = stages * replicas;
  const keys = simKeys(seed, members);
  const honest = [...keys.keys()].filter((index) => index !== hostile?.index);
  const honestIds = new Set(honest.map((index) => keys[index]!.nodeId));
  let ledger: Ledger | undefined;
  const world = createWorld({
    seed,
    keys,
    members,
    stages,
    compression,
    machines,
    microbatches,
    checker: (network) => createDilocoChecker(network, honestIds, (index) => network.members[index]!.stage),
    survey: (network) => {
      ledger = createLedger({ network, honest: honestIds });
      return ledger.survey;
    },
  });
  const cluster = createCluster({
    seed,
    nodes: members,
    program: (index) =>
      index === hostile?.index ? hostileNeighbour(world, hostile.kind) : honestNode(world),
  });
  const cohorts = Array.from({ length: stages }, (_, stage) =>
    honest.filter((index) => world.network.members[index]!.stage === stage),
  );
  return { world, cluster, keys, honest, cohorts, ledger: ledger! };
}

async function run(seed: number): Promise<ScenarioResult> {
  const cast = drawCast(seed);
  const prepared = prepare(seed, cast);
  const { world, cluster, keys, honest, cohorts, ledger } = prepared;
  for (const index of keys.keys()) await cluster.start(index);
  await runPipelineStorm(cluster, { durationMs: stormMs, cohorts, world });
  const inStorm = ledger.steps();
  await mustProgress(prepared, 2);
  await ledger.finish(
    honest.flatMap((index) => {
      const peer = world.peers.get(index);
      return peer ? [{ nodeId: keys[index]!.nodeId, pipeline: peer.pipeline }] : [];
    }),
  );
  const rounds = await reexecuteLists(world);
  const { stages, replicas, microbatches, hostile, compression } = cast;
  const { failover = 0, 'microbatch-lost': lost = 0, 'step-lost': stepsLost = 0 } = ledger.events();
  const enemy = hostile ? `${hostile.index} ${hostile.kind}` : 'none';
  return {
    summary: `${stages} stages × ${replicas}, ${microbatches} microbatches, ${compression}, hostile: ${enemy}; ${rounds} rounds, ${ledger.steps()} steps (${inStorm} in the storm), ${ledger.servedSteps()} served, evidence of ${ledger.evidence()} checked, ${failover} failovers, ${lost} microbatches and ${stepsLost} steps told lost`,
    trace: cluster.network.trace(),
    numbers: {
      rounds,
      steps: ledger.steps(),
      servedSteps: ledger.servedSteps(),
      evidence: ledger.evidence(),
      failovers: failover,
      lost,
      stepsLost,
      honest: honest.length,
      messages: cluster.network.messages(),
    },
  };
}

/** All honest nodes close so many rounds more, and every honest Driver has a contribution counted in one of them. */
async function mustProgress(
  { world, cluster, keys, honest, cohorts }: ReturnType<typeof prepare>,
  rounds: number,
): Promise<void> {
  const roundOf = (index: number) => world.peers.get(index)?.position.round ?? -1;
  const listed = (index: number) => world.checker.lastListed(keys[index]!.nodeId);
  const from = world.checker.newestRound();
  const isDone = () => {
    const at = honest.map(roundOf);
    const isClose = Math.max(...at) - Math.min(...at) <= 1;
    return isClose && Math.min(...at) >= from + rounds && cohorts[0]!.every((index) => listed(index) >= from);
  };
  await cluster.run(calmMs, isDone);
  holds(isDone(), 'progress', () => {
    const states = honest.map((index) => `${index} at round ${roundOf(index)}, listed in ${listed(index)}`);
    return `in the calm: wanted ${rounds} rounds after ${from}; ${states.join('; ')}`;
  });
}

export const pipelineScenario: Scenario = {
  name: 'pipeline',
  description:
    'training through stages under kills, hangs and hostile neighbours: every gradient once, progress',
  run,
};
