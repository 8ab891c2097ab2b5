/**
 * A stage's bookkeeping of microbatches: what entered and what came back for each, which of them are in a path's sum, and
 * the sum made again when a step names others. It computes through a `StageTrainer` and knows no peers and no rounds.
 */
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import type { GradientSum } from './pipeline-gradients.ts';
import type { PipelineStage, StageEntry, StageTarget, SummedMicrobatch } from './pipeline-stage.ts';
import type { StageTrainer } from './stage-trainer.ts';

export interface PipelineLimits {
  /** Microbatches kept at once, on all paths. */
  readonly microbatchesMax: number;
  /** Bytes of what is kept of them. */
  readonly bytesMax: number;
  /** Paths at once; each has a sum of the stage's size, 4 bytes for each parameter. */
  readonly pathsMax: number;
}

export const pipelineLimits: PipelineLimits = { microbatchesMax: 512, bytesMax: 2 ** 30, pathsMax: 8 };

/** Calls must not overlap. */
export interface PipelineSums extends Omit<PipelineStage, 'applyStep' | 'evaluateRows' | 'evaluateLoss'> {
  /** `step` counts AdamW's steps from 1 since the moments began. */
  applyStep(
    call: Parameters<PipelineStage['applyStep']>[0] & { readonly step: number },
  ): Promise<Outcome<readonly SummedMicrobatch[]>>;
  /** What was summed until now is summed again, at the weights of then, before it is used. */
  renew(): void;
  /** Forgets everything. */
  clear(): void;
}

interface Microbatch {
  readonly id: string;
  /** Steps taken when it came, and when its gradient was summed. */
  readonly madeAt: number;
  summedAt: number;
  readonly entry: StageEntry;
  /** Set by its backward pass. */
  target?: StageTarget;
  /** A step of its path was applied without it. */
  passedOver: boolean;
}

interface Path {
  readonly kept: Map<string, Microbatch>;
  readonly sum: GradientSum;
  /** What the sum is made of, in the order it was added; may hold what is kept no more. */
  readonly summed: Set<Microbatch>;
  /** What the next step is to be made of: what is summed, unless that has to be done again. */
  prepared: ReadonlyMap<Microbatch, StageTarget> | undefined;
}

type Trainer = Pick<
  StageTrainer,
  'sums' | 'isEntry' | 'isTarget' | 'forward' | 'backward' | 'sumSquares' | 'apply'
>;

/** `stepsTaken`: of this stage, in the round. */
export function createPipelineSums(
  trainer: Trainer,
  { microbatchesMax, bytesMax, pathsMax }: PipelineLimits = pipelineLimits,
  stepsTaken: () => number = () => 0,
): PipelineSums {
  const paths = new Map<string, Path>();
  let microbatches = 0;
  let bytes = 0;

  const hasRoom = (arrays: number, added: number) =>
    microbatches + arrays <= microbatchesMax && bytes + added <= bytesMax;
  const full = () => reject('too-many-microbatches', `${microbatches} are kept, ${bytes} bytes`);

  const keep = (path: Path, id: string, microbatch: Microbatch) => {
    path.kept.set(id, microbatch);
    microbatches += 1;
    bytes += bytesOf(microbatch);
  };
  const drop = (path: Path, id: string) => {
    const microbatch = path.kept.get(id);
    if (!microbatch) return;
    path.kept.delete(id);
    microbatches -= 1;
    bytes -= bytesOf(microbatch);
    if (path.prepared?.has(microbatch)) path.prepared = undefined;
  };
  const makePath = (name: string): Path => {
    const path = {
      kept: new Map(),
      sum: trainer.sums.take(),
      summed: new Set<Microbatch>(),
      prepared: undefined,
    };
    paths.set(name, path);
    return path;
  };
  const forget = (name: string, path: Path) => {
    for (const id of path.kept.keys()) drop(path, id);
    paths.delete(name);
    trainer.sums.give(path.sum);
  };

  /** Why a microbatch cannot be new on this path. */
  const problemOf = (name: string, id: string, entry: StageEntry, added: number): Rejection | undefined => {
    if (!trainer.isEntry(entry)) return reject('wrong-shape', `entry of ${entry.length}`);
    const path = paths.get(name);
    if (path?.kept.has(id)) return reject('duplicate-microbatch', id);
    if (!path && paths.size >= pathsMax) return reject('too-many-paths', `${pathsMax} at most`);
    return hasRoom(1, added) ? undefined : full();
  };

  const made = (id: string, entry: StageEntry): Microbatch => {
    const madeAt = stepsTaken();
    return { id, madeAt, summedAt: madeAt, entry: copyIds(entry), passedOver: false };
  };
  const addToSum = async (path: Path, microbatch: Microbatch, target: StageTarget) => {
    const result = await trainer.backward(microbatch.entry, target, path.sum);
    path.summed.add(microbatch);
    microbatch.summedAt = stepsTaken();
    return result;
  };
  const addMissing = async (path: Path, named: ReadonlyMap<Microbatch, StageTarget>) => {
    for (const [microbatch, target] of named)
      if (!path.summed.has(microbatch)) await addToSum(path, microbatch, target);
  };

  return {
    forward: async ({ path: name, id, entry }) => {
      const problem = problemOf(name, id, entry, entry.byteLength);
      if (problem) return problem;
      const y = await trainer.forward(entry, 'weights');
      keep(paths.get(name) ?? makePath(name), id, made(id, entry));
      return accept(y);
    },
    backward: async ({ path: name, id, entry, target }) => {
      if (!trainer.isTarget(target)) return reject('wrong-shape', `target of ${target.length}`);
      const known = paths.get(name)?.kept.get(id);
      if (!entry && !known) return reject('unknown-microbatch', id);
      if (known?.target) return reject('duplicate-microbatch', id);
      const problem = entry && problemOf(name, id, entry, entry.byteLength + target.byteLength);
      if (problem) return problem;
      if (!entry && !hasRoom(0, target.byteLength)) return full();
      const path = paths.get(name) ?? makePath(name);
      if (entry) keep(path, id, made(id, entry));
      const microbatch = path.kept.get(id)!;
      try {
        // What is prepared may be applied any moment: a later microbatch is computed, and summed when it is named.
        const result = path.prepared
          ? await trainer.backward(microbatch.entry, target, undefined)
          : await addToSum(path, microbatch, target);
        microbatch.target = copyIds(target);
        bytes += target.byteLength;
        return accept(result);
      } catch (error) {
        if (entry) drop(path, id);
        if (path.kept.size === 0) forget(name, path);
        throw error;
      }
    },
    prepareStep: async ({ path: name, ids }) => {
      const path = paths.get(name);
      if (!path || ids.length === 0) return reject('unknown-microbatch', `none on path ${name}`);
      if (new Set(ids).size < ids.length) return reject('duplicate-microbatch', 'named twice');
      const named = new Map<Microbatch, StageTarget>();
      for (const id of ids) {
        const microbatch = path.kept.get(id);
        if (!microbatch?.target) return reject('unknown-microbatch', id);
        named.set(microbatch, microbatch.target);
      }
      path.prepared = undefined;
      if ([...path.summed].some((microbatch) => !named.has(microbatch))) startAgain(path);
      await addMissing(path, named);
      path.prepared = named;
      return accept(trainer.sumSquares(path.sum));
    },
    applyStep: async ({ path: name, learningRate, gradientScale, step }) => {
      const path = paths.get(name);
      if (!path?.prepared) return reject('not-prepared', name);
      await addMissing(path, path.prepared);
      trainer.apply(path.sum, { learningRate, gradientScale, step });
      const summed = [...path.summed].map(({ id, madeAt, summedAt }) => ({ id, madeAt, summedAt }));
      path.prepared = undefined;
      startAgain(path);
      for (const [id, microbatch] of path.kept) {
        // One that waits for its backward pass belongs to the next step, or else its caller gave up on it.
        if (microbatch.target || microbatch.passedOver) drop(path, id);
        else microbatch.passedOver = true;
      }
      if (path.kept.size === 0) forget(name, path);
      return accept(summed);
    },
    discard: async ({ path: name, ids }) => {
      const path = paths.get(name);
      if (!path) return;
      for (const id of ids ?? path.kept.keys()) drop(path, id);
      if (path.kept.size === 0) forget(name, path);
    },
    renew: () => {
      for (const path of paths.values()) startAgain(path);
    },
    clear: () => {
      for (const [name, path] of paths) forget(name, path);
      trainer.sums.trim();
    },
  };
}

function startAgain({ summed, sum }: Path): void {
  summed.clear();
  sum.count = 0;
}

function bytesOf({ entry, target }: Microbatch): number {
  return entry.byteLength + (target?.byteLength ?? 0);
}

/** Rows are the stage's once passed; ids stay the caller's. */
function copyIds<Arrays extends StageEntry>(array: Arrays): Arrays {
  return (array instanceof Int32Array ? array.slice() : array) as Arrays;
}
