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

interface Sums {
  readonly trainer: Trainer;
  readonly limits: PipelineLimits;
  readonly stepsTaken: () => number;
  readonly paths: Map<string, Path>;
  /** Kept, on all paths. */
  microbatches: number;
  bytes: number;
}

/** `stepsTaken`: of this stage, in the round. */
export function createPipelineSums(
  trainer: Trainer,
  limits: PipelineLimits = pipelineLimits,
  stepsTaken: () => number = () => 0,
): PipelineSums {
  const paths = new Map<string, Path>();
  const sums: Sums = { trainer, limits, stepsTaken, paths, microbatches: 0, bytes: 0 };
  return {
    forward: (call) => forward(sums, call),
    backward: (call) => backward(sums, call),
    prepareStep: (call) => prepareStep(sums, call),
    applyStep: (call) => applyStep(sums, call),
    discard: async ({ path: name, ids }) => {
      const path = paths.get(name);
      if (!path) return;
      for (const id of ids ?? path.kept.keys()) drop(sums, path, id);
      if (path.kept.size === 0) forget(sums, name, path);
    },
    renew: () => {
      for (const path of paths.values()) startAgain(path);
    },
    clear: () => {
      for (const [name, path] of paths) forget(sums, name, path);
      trainer.sums.trim();
    },
  };
}

type Call<Name extends 'forward' | 'backward' | 'prepareStep' | 'applyStep'> = Parameters<
  PipelineSums[Name]
>[0];

async function forward(sums: Sums, { path: name, id, entry }: Call<'forward'>) {
  const problem = problemOf(sums, name, id, entry, entry.byteLength);
  if (problem) return problem;
  const y = await sums.trainer.forward(entry, 'weights');
  keep(sums, pathOf(sums, name), id, entry);
  return accept(y);
}

async function backward(sums: Sums, { path: name, id, entry, target }: Call<'backward'>) {
  const { trainer, paths } = sums;
  if (!trainer.isTarget(target)) return reject('wrong-shape', `target of ${target.length}`);
  const known = paths.get(name)?.kept.get(id);
  if (!entry && !known) return reject('unknown-microbatch', id);
  if (known?.target) return reject('duplicate-microbatch', id);
  const problem = entry && problemOf(sums, name, id, entry, entry.byteLength + target.byteLength);
  if (problem) return problem;
  if (!entry && !hasRoom(sums, 0, target.byteLength)) return full(sums);
  const path = pathOf(sums, name);
  if (entry) keep(sums, path, id, entry);
  const microbatch = path.kept.get(id)!;
  try {
    // What is prepared may be applied any moment: a later microbatch is computed, and summed when it is named.
    const result = path.prepared
      ? await trainer.backward(microbatch.entry, target, undefined)
      : await addToSum(sums, path, microbatch, target);
    microbatch.target = copyIds(target);
    sums.bytes += target.byteLength;
    return accept(result);
  } catch (error) {
    if (entry) drop(sums, path, id);
    if (path.kept.size === 0) forget(sums, name, path);
    throw error;
  }
}

async function prepareStep(sums: Sums, { path: name, ids }: Call<'prepareStep'>) {
  const path = sums.paths.get(name);
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
  await addMissing(sums, path, named);
  path.prepared = named;
  return accept(sums.trainer.sumSquares(path.sum));
}

async function applyStep(
  sums: Sums,
  { path: name, learningRate, gradientScale, step }: Call<'applyStep'>,
): Promise<Outcome<readonly SummedMicrobatch[]>> {
  const path = sums.paths.get(name);
  if (!path?.prepared) return reject('not-prepared', name);
  await addMissing(sums, path, path.prepared);
  sums.trainer.apply(path.sum, { learningRate, gradientScale, step });
  const summed = [...path.summed].map(({ id, madeAt, summedAt }) => ({ id, madeAt, summedAt }));
  path.prepared = undefined;
  startAgain(path);
  for (const [id, microbatch] of path.kept) {
    // One that waits for its backward pass belongs to the next step, or else its caller gave up on it.
    if (microbatch.target || microbatch.passedOver) drop(sums, path, id);
    else microbatch.passedOver = true;
  }
  if (path.kept.size === 0) forget(sums, name, path);
  return accept(summed);
}

/** Why a microbatch cannot be new on this path. */
function problemOf(
  sums: Sums,
  name: string,
  id: string,
  entry: StageEntry,
  added: number,
): Rejection | undefined {
  const { trainer, paths, limits } = sums;
  if (!trainer.isEntry(entry)) return reject('wrong-shape', `entry of ${entry.length}`);
  const path = paths.get(name);
  if (path?.kept.has(id)) return reject('duplicate-microbatch', id);
  if (!path && paths.size >= limits.pathsMax) return reject('too-many-paths', `${limits.pathsMax} at most`);
  return hasRoom(sums, 1, added) ? undefined : full(sums);
}

function hasRoom({ limits, microbatches, bytes }: Sums, arrays: number, added: number): boolean {
  return microbatches + arrays <= limits.microbatchesMax && bytes + added <= limits.bytesMax;
}

function full({ microbatches, bytes }: Sums): Rejection {
  return reject('too-many-microbatches', `${microbatches} are kept, ${bytes} bytes`);
}

function pathOf({ paths, trainer }: Sums, name: string): Path {
  const existing = paths.get(name);
  if (existing) return existing;
  const path: Path = { kept: new Map(), sum: trainer.sums.take(), summed: new Set(), prepared: undefined };
  paths.set(name, path);
  return path;
}

function keep(sums: Sums, path: Path, id: string, entry: StageEntry): void {
  const madeAt = sums.stepsTaken();
  const microbatch = { id, madeAt, summedAt: madeAt, entry: copyIds(entry), passedOver: false };
  path.kept.set(id, microbatch);
  sums.microbatches += 1;
  sums.bytes += bytesOf(microbatch);
}

function drop(sums: Sums, path: Path, id: string): void {
  const microbatch = path.kept.get(id);
  if (!microbatch) return;
  path.kept.delete(id);
  sums.microbatches -= 1;
  sums.bytes -= bytesOf(microbatch);
  if (path.prepared?.has(microbatch)) path.prepared = undefined;
}

function forget(sums: Sums, name: string, path: Path): void {
  for (const id of path.kept.keys()) drop(sums, path, id);
  sums.paths.delete(name);
  sums.trainer.sums.give(path.sum);
}

async function addMissing(
  sums: Sums,
  path: Path,
  named: ReadonlyMap<Microbatch, StageTarget>,
): Promise<void> {
  for (const [microbatch, target] of named)
    if (!path.summed.has(microbatch)) await addToSum(sums, path, microbatch, target);
}

async function addToSum(
  { trainer, stepsTaken }: Sums,
  path: Path,
  microbatch: Microbatch,
  target: StageTarget,
) {
  const result = await trainer.backward(microbatch.entry, target, path.sum);
  path.summed.add(microbatch);
  microbatch.summedAt = stepsTaken();
  return result;
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
