/**
 * An honest node of the diloco scenario: the product's own peer and training journey over a small real replica.
 * Computing takes virtual time, a snapshot survives a crash where the machine writes them, and everything the replica
 * does is shown to the checkers.
 */
import { type BlobShape, decodeRange } from '../../src/diloco/compression/blob.ts';
import type { RoundRequest, RoundResult, StageReplica } from '../../src/diloco/replica.ts';
import { createCheckpointKeeper, type SnapshotFiles } from '../../src/peer/checkpoint.ts';
import { createPeer, type Peer, type PeerOptions } from '../../src/peer/peer.ts';
import { train } from '../../src/peer/train.ts';
import { createMemoryRows } from '../../src/pipeline/row-store.ts';
import { sleep } from '../../src/std/clock.ts';
import { createKernelMemory } from '../../src/tensor/kernels/wasm.ts';
import type { NodeEnv, NodeProgram, RunningNode } from '../cluster.ts';
import { between } from '../random.ts';
import { holds, Violation } from '../scenario.ts';
import { trainApart } from './stage-alone.ts';
import { type DilocoWorld, freshReplica, stageOf } from './world.ts';

/** Of some rounds. */
const rowBytesMax = 2 ** 26;

export function honestNode(world: DilocoWorld): NodeProgram {
  return async (env) => {
    const recording = world.records ? { intervalSteps: 2 } : undefined;
    const fresh = await freshReplica(world.network, stageOf(world, env.index), recording);
    const surveyed = world.survey?.(env, fresh);
    const replica = watched(world, env, computing(world, env, surveyed?.replica ?? fresh));
    const { snapshotMs } = world.machines[env.index]!;
    const events: PeerOptions['events'] = (event) => {
      surveyed?.events(event);
      const isFatal =
        (event.type === 'warning' && event.code === 'consensus-failed') ||
        (event.type === 'resync' && event.reason === 'diverged');
      if (isFatal) env.report(new Violation('node-lives', `node ${env.index}: ${JSON.stringify(event)}`));
    };
    const checkpoints =
      snapshotMs === null
        ? undefined
        : createCheckpointKeeper({
            files: snapshotFiles(world, env),
            replica,
            clock: env.clock,
            events,
            intervalMs: snapshotMs,
          });
    await checkpoints?.restore();
    const peer = await startPeer(world, env, {
      replica,
      events,
      // What is kept is looked at as it is: nothing is claimed, and no chain of claims can break.
      ...(world.records && {
        rows: createMemoryRows(rowBytesMax),
        steps: () => ({ proof: async () => undefined }),
      }),
      ...(checkpoints && { checkpoints }),
      ...(surveyed && { transport: surveyed.transport }),
    });
    world.peers.set(env.index, peer);
    peer.ledger.onBlock((taken) => observe(env, () => world.checker.applies(env.index, taken)));
    observe(env, () => world.checker.stands(env.index, peer.position.round, peer.position.stateHash));
    return runTraining(env, peer, (error) => {
      const detail = error instanceof Error ? error.stack : String(error);
      env.report(new Violation('node-lives', `node ${env.index} ended: ${detail}`));
    });
  };
}

/** The product's peer in these surroundings; hostile programs put other parts in. */
export async function startPeer(
  world: DilocoWorld,
  env: NodeEnv,
  parts: Pick<PeerOptions, 'replica' | 'events'> & Partial<PeerOptions>,
): Promise<Peer> {
  const { network, dataset, signatures } = world;
  const { key, transport, clock, store, ledger } = env;
  const peer = await createPeer({
    network,
    key,
    dataset,
    transport,
    clock,
    random: env.random,
    store,
    ledger,
    signatures,
    heldOutBatches: 0,
    ...parts,
  });
  if (world.apart) trainApart(peer);
  return peer;
}

export function runTraining(env: NodeEnv, peer: Peer, onEnd: (error: unknown) => void): RunningNode {
  const abort = new AbortController();
  train(peer, abort.signal).then(
    () => onEnd(new Error('training ended by itself')),
    (error) => onEnd(error),
  );
  return {
    async stop() {
      abort.abort(new Error(`node ${env.index} was stopped`));
      await peer.close();
    },
  };
}

const hungMs = 100;

/** Every computation takes its time, drawn anew, and that is when others act. */
export function computing(world: DilocoWorld, env: NodeEnv, real: StageReplica): StageReplica {
  const { stepMs, forwardMs } = world.machines[env.index]!;
  const after = async <T>(costMs: number, work: () => Promise<T>): Promise<T> => {
    await sleep(env.clock, costMs * between(env.random, 0.9, 1.3));
    while (world.hung.has(env.index)) await sleep(env.clock, hungMs);
    return env.during(work());
  };
  return {
    ...real,
    ...(forwardMs !== undefined && {
      forward: (call: Parameters<StageReplica['forward']>[0]) => after(forwardMs, () => real.forward(call)),
    }),
    trainStep: (...call) => after(stepMs, () => real.trainStep(...call)),
    backward: (call) => after(stepMs, () => real.backward(call)),
    contribute: () => after(stepMs / 10, () => real.contribute()),
    screen: (...which) => after(stepMs / 50, () => real.screen(...which)),
    closeRound: (request) => after(stepMs / 5, () => real.closeRound(request)),
  };
}

/** Shows the checkers what an honest replica does. */
function watched(world: DilocoWorld, env: NodeEnv, real: StageReplica): StageReplica {
  const { checker } = world;
  return {
    ...real,
    contribute: async () => {
      const { round } = await real.position();
      const made = await real.contribute();
      checker.made(env.key.nodeId, round, made.blobHash);
      return made;
    },
    closeRound: async (request) => {
      const { contributed } = await real.position();
      const before = contributed ? await feedbackOf(real) : undefined;
      const result = await real.closeRound(request);
      if (!result.ok) return result;
      const after = await feedbackOf(real);
      const shape = { codec: world.network.outer.compression, length: after.length };
      observe(env, () => {
        checker.closing(env.index, request);
        checker.stands(env.index, result.value.position.round, result.value.position.stateHash);
        if (before) nothingLost({ env, before, after, request, result: result.value, shape });
      });
      return result;
    },
    install: async (state) => {
      const result = await real.install(state);
      if (result.ok) observe(env, () => checker.installed(env.index, state.round, result.value.stateHash));
      return result;
    },
  };
}

async function feedbackOf(replica: StageReplica): Promise<Float32Array> {
  return (await replica.snapshot()).tensors.errorFeedback;
}

/** For decoding here: memories are made once, for each takes much address space. */
const memory = createKernelMemory({ bytes: 2 * 1024 * 1024 });

/** Left out: all of the contribution stays as error feedback. Taken in: what the codec lost stays. */
function nothingLost(made: {
  readonly env: NodeEnv;
  readonly before: Float32Array;
  readonly after: Float32Array;
  readonly request: RoundRequest;
  readonly result: RoundResult;
  readonly shape: BlobShape;
}): void {
  const { env, before, after, request, result, shape } = made;
  const own = request.contributions.find(({ nodeId }) => nodeId === env.key.nodeId);
  const refused = result.rejected.some(({ node, code }) => node === env.key.nodeId && code !== 'duplicate');
  const expected = before.slice();
  if (refused) expected.fill(0);
  else if (own) {
    const position = memory.mark();
    const decoded = memory.allocF32(shape.length);
    decodeRange(own.blob, shape, 0, decoded, memory);
    for (const [i, value] of decoded.entries()) expected[i] = expected[i]! - value;
    memory.reset(position);
  }
  const isKept = expected.every((value, i) => value === after[i]);
  holds(isKept, 'nothing-lost', () => {
    const share = own ? (refused ? 'refused' : 'taken in') : 'left out';
    return `node ${env.index}: error feedback after round ${request.round}, whose list has it ${share}`;
  });
}

/** A check inside the code under test: what it throws ends the run and not that code. */
function observe(env: NodeEnv, check: () => void): void {
  try {
    check();
  } catch (violation) {
    env.report(violation);
  }
}

/** One snapshot, replaced as a whole a while after it was asked for; a crash before that leaves the one before. */
function snapshotFiles(world: DilocoWorld, env: NodeEnv): SnapshotFiles {
  return {
    write: async (snapshot) => {
      await sleep(env.clock, between(env.random, 5, 300));
      world.snapshots.set(env.index, snapshot);
      return 1;
    },
    load: async () => ({ snapshot: world.snapshots.get(env.index), bytes: 1, damaged: [] }),
  };
}
