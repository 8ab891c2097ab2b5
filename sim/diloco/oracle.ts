/**
 * The oracle of the diloco scenario: what the decided lists give when they are applied one after another on a replica
 * that never met a network, and, where nothing went wrong, what plain DiLoCo in one loop gives. Knows no peers.
 */
import type { RoundRequest } from '../../src/diloco/replica.ts';
import { batchOf } from '../../src/genesis/sampler.ts';
import { learningRate } from '../../src/optim/schedule.ts';
import { must } from '../../src/std/assert.ts';
import { holds } from '../scenario.ts';
import { type DilocoWorld, freshReplica } from './world.ts';

/** Every state the nodes agreed on is that of the lists, in order, from w_0: in each stage. Gives the rounds closed. */
export async function reexecuteLists(world: DilocoWorld): Promise<number> {
  const rounds: number[] = [];
  for (let stage = 0; stage < world.network.training.stages; stage++)
    rounds.push(await reexecuteStage(world, stage));
  return Math.max(...rounds);
}

async function reexecuteStage(world: DilocoWorld, stage: number): Promise<number> {
  const { checker, network } = world;
  const replica = await freshReplica(network, stage);
  let { round, stateHash } = await replica.position();
  for (const closed = checker.closed(stage); ; ) {
    const agreed = checker.states(stage).get(round);
    holds(agreed === undefined || agreed === stateHash, 'oracle', () => {
      return `the lists lead stage ${stage} to ${stateHash.slice(0, 8)} at round ${round}, nodes stand in ${agreed?.slice(0, 8)}`;
    });
    const list = closed.get(round);
    if (!list) break;
    const result = await replica.closeRound({ ...list, ownNodeId: '' });
    holds(result.ok, 'oracle', () => `the list of round ${round} cannot be applied`);
    ({ round, stateHash } = result.value.position);
  }
  const newest = Math.max(...checker.states(stage).keys());
  holds(newest === round, 'oracle', () => `nodes stand at round ${newest}, their lists end at ${round}`);
  return round;
}

/**
 * DiLoCo as the papers write it: in each round every listed node makes its steps from w_r, all contributions count,
 * all take the outer step. Holds for runs without faults in which nobody was late.
 */
export async function retrain(world: DilocoWorld): Promise<void> {
  const { network, dataset, checker } = world;
  const { training, members } = network;
  const replicas = await Promise.all(members.map(() => freshReplica(network, 0)));
  for (const [round, list] of [...checker.closed(0)].sort(([a], [b]) => a - b)) {
    holds(list.contributions.length === members.length, 'oracle', () => `round ${round} left somebody out`);
    const blobs = new Map<string, Uint8Array>();
    for (const { nodeId, batches } of list.contributions) {
      const replica = must(replicas[members.findIndex((member) => member.nodeId === nodeId)], nodeId);
      for (let step = 0; step < batches; step++) {
        const batch = await batchOf({ dataset, nodeId, round, step, ...training });
        await replica.trainStep([batch], learningRate(training, round * training.innerSteps + step));
      }
      blobs.set(nodeId, (await replica.contribute()).blob);
    }
    const contributions: RoundRequest['contributions'] = list.contributions.map(({ nodeId, batches }) => {
      return { nodeId, batches, blob: must(blobs.get(nodeId), nodeId) };
    });
    for (const [i, replica] of replicas.entries()) {
      const closed = await replica.closeRound({ round, contributions, ownNodeId: members[i]!.nodeId });
      const agreed = checker.states(0).get(round + 1);
      holds(closed.ok && closed.value.position.stateHash === agreed, 'oracle', () => {
        return `a plain loop of ${members.length} nodes comes to another state after round ${round}`;
      });
    }
  }
}
