/**
 * Steps of one stage without its neighbours: rows, tokens and gradients are drawn from (node, round, step). For rounds
 * of several stages, which do not care where the gradients come from; the pipeline itself is not simulated here.
 */
import type { StageReplica } from '../../src/diloco/replica.ts';
import { learningRate } from '../../src/optim/schedule.ts';
import type { Peer } from '../../src/peer/peer.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { accept, type Outcome } from '../../src/std/outcome.ts';
import { seededRandom, uniform, uniformBelow } from '../../src/std/random.ts';

/** Puts such steps in the place of the peer's pipeline, which serves nobody and is asked by nobody then. */
export function trainApart(peer: Peer): void {
  const { network, replica, key } = peer.options;
  const { training, model } = network;
  const innerStep: Peer['pipeline']['innerStep'] = async (round, step) => {
    const draw = seededRandom(sha256(utf8(`${key.nodeId} ${round} ${step}`)));
    const rate = learningRate(training, round * training.innerSteps + step);
    const tokens = training.batch * training.sequence;
    const ids = () => Int32Array.from({ length: tokens }, () => uniformBelow(draw, model.vocabulary));
    const rows = () => Float32Array.from({ length: tokens * model.width }, () => uniform(draw) - 0.5);
    const made = await oneStep(replica, { id: `${round}/${step}`, ids, rows, rate });
    if (!made.ok) return made;
    const taken = { driver: key.nodeId, round, step, loss: 0, gradientNorm: 0, microbatches: 1, lost: null };
    return accept(taken);
  };
  const apart = { isDriver: true, begin() {}, end: async () => {}, innerStep };
  Object.assign(peer, { pipeline: { ...peer.pipeline, ...apart } });
}

interface Draws {
  readonly id: string;
  readonly ids: () => Int32Array;
  readonly rows: () => Float32Array;
  readonly rate: number;
}

async function oneStep(replica: StageReplica, { id, ids, rows, rate }: Draws): Promise<Outcome<unknown>> {
  const { stage } = await replica.info();
  const path = 'alone';
  const entry = stage.embedding ? ids() : rows();
  const forward = stage.head ? undefined : await replica.forward({ path, id, entry });
  if (forward?.ok === false) return forward;
  const target = stage.head ? { entry, target: ids() } : { target: rows() };
  const backward = await replica.backward({ path, id, ...target });
  if (!backward.ok) return backward;
  const prepared = await replica.prepareStep({ path, ids: [id] });
  if (!prepared.ok) return prepared;
  return replica.applyStep({ path, learningRate: rate, gradientScale: 1 });
}
