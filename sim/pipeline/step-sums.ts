/**
 * Whether the gradient of an optimizer step is that of exactly the microbatches it names: each is computed again by itself,
 * at the weights that the replica had when it was summed. It knows no peers.
 */
import type { ReplicaSnapshot, StageReplica } from '../../src/diloco/replica.ts';
import type { StageEntry, StageTarget, SummedMicrobatch } from '../../src/optim/pipeline-stage.ts';
import { holds, Violation } from '../scenario.ts';
import type { MadeStep } from './evidence.ts';

export interface Kept {
  readonly entry: StageEntry;
  target?: StageTarget;
  /** Steps made in the round when its gradient was first computed. */
  madeAt?: number;
}

/** Momentum after the step follows from the gradient alone: as far as it may for sums made in another order. */
const relativeDifference = 1e-4;

interface Summed extends SummedMicrobatch {
  readonly kept: Kept | undefined;
  /** The replica when its gradient was made that is in the sum. */
  readonly at: ReplicaSnapshot | undefined;
}

interface StepMade {
  readonly before: ReplicaSnapshot;
  readonly after: ReplicaSnapshot;
  readonly shadow: StageReplica;
  readonly call: Parameters<StageReplica['applyStep']>[0];
  readonly ids: readonly string[];
  readonly microbatches: readonly Summed[];
  readonly beta1: number;
}

/** The step's gradient is that of exactly these microbatches, each made again by itself, at the weights it says. */
export async function isSumOf(made: StepMade): Promise<MadeStep['microbatches']> {
  const { before, after, call, ids, microbatches, beta1 } = made;
  const name = `a step over ${ids.join()} on path ${shortened(call.path)}`;
  const finite = (array: Float32Array) => array.every(Number.isFinite);
  holds(finite(after.tensors.weights) && finite(after.tensors.firstMoments), 'replica-survives', () => {
    return `${name} leaves values that are not finite`;
  });
  const summed = microbatches.map(({ id }) => id).sort();
  holds(
    summed.join() === [...ids].sort().join(),
    'counted-once',
    () => `${name} says it is of ${summed.join()}`,
  );
  const actual = addedBy(before, after, beta1);
  const expected = new Float64Array(actual.length);
  const whole: MadeStep['microbatches'][number][] = [];
  for (const { kept, at, id, madeAt, summedAt } of microbatches) {
    if (!kept?.target || !at)
      throw new Violation('counted-once', `${name}: ${id} never had its backward pass here`);
    holds(
      kept.madeAt === madeAt,
      'counted-once',
      () => `${name}: ${id} was made at ${kept.madeAt}, not ${madeAt}`,
    );
    const added = await addedAlone(made, kept, at);
    for (const [i, value] of added.entries()) expected[i]! += value;
    whole.push({ id, madeAt, summedAt, entry: kept.entry, target: kept.target });
  }
  const largest = expected.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const off = expected.reduce((most, value, i) => Math.max(most, Math.abs(value - actual[i]!)), 0) / largest;
  holds(off <= relativeDifference, 'counted-once', () => {
    return `${name}: its gradient is another than theirs, by ${off.toExponential(1)}`;
  });
  return whole;
}

/** (1 − β₁) × the gradient of a step, from the momentum before and after. */
function addedBy(before: ReplicaSnapshot, after: ReplicaSnapshot, beta1: number): Float64Array {
  const from = before.tensors.firstMoments;
  return Float64Array.from(after.tensors.firstMoments, (value, i) => value - beta1 * from[i]!);
}

/** The same of a step over one microbatch, at the weights of this snapshot. */
async function addedAlone(
  { shadow, call, beta1 }: StepMade,
  { entry, target }: Kept,
  at: ReplicaSnapshot,
): Promise<Float64Array> {
  const restored = await shadow.restore({ ...at, contributed: false });
  holds(restored.ok, 'simulator', () => 'the snapshot of a replica cannot be restored');
  const { stage } = await shadow.info();
  const name = { path: 'alone', id: '0' };
  if (!stage.head) await shadow.forward({ ...name, entry: entry.slice() });
  await shadow.backward({ ...name, target: target!.slice(), ...(stage.head && { entry: entry.slice() }) });
  const sums = await shadow.prepareStep({ path: name.path, ids: [name.id] });
  const taken = await shadow.applyStep({ ...call, path: name.path });
  holds(sums.ok && taken.ok, 'simulator', () => `not made again: ${JSON.stringify([sums, taken])}`);
  return addedBy(at, await shadow.snapshot(), beta1);
}

/** A path by the beginnings of its names. */
export function shortened(path: string): string {
  return path
    .split('/')
    .map((node) => node.slice(0, 4))
    .join('/');
}
