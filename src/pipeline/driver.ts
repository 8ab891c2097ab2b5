/**
 * The Driver's inner step: its microbatches through all stages, several at a time, and then one optimizer step of them
 * all. A model held whole is the case without a next stage. It knows no rounds beyond their number.
 */
import type { NodeId } from '../net/transport.ts';
import { inTurn } from '../std/in-turn.ts';
import { type Outcome, reject } from '../std/outcome.ts';
import {
  applyStep,
  type Microbatch,
  openPath,
  type Path,
  prepareStep,
  runMicrobatch,
  type StageNode,
  type StepTaken,
  sealNorm,
  sumOf,
} from './stage-node.ts';

export interface DriverOptions {
  readonly node: StageNode;
  readonly self: NodeId;
  /** G: microbatches of one step. */
  readonly microbatches: number;
  /** Microbatches under way at a time. */
  readonly window: number;
  readonly batch: (round: number, step: number, index: number) => Promise<Microbatch>;
  /** A microbatch that no replica would take counts for nothing in its step. */
  readonly onLost: (index: number, code: string) => void;
}

export interface Driver {
  /** `stale-step`: the stages behind have taken it already, for an earlier life of this node; `nothing-trained`, `aborted`. */
  innerStep(
    place: { readonly round: number; readonly step: number; readonly learningRate: number },
    signal: AbortSignal,
  ): Promise<Outcome<StepTaken>>;
}

/** Microbatches under way for each stage of the pipeline: enough that none waits for one on the wire. */
const windowPerStage = 4;

/** Microbatches that a Driver has under way. */
export function pipelineWindow(stages: number): number {
  return stages === 1 ? 1 : windowPerStage * stages;
}

export function createDriver(options: DriverOptions): Driver {
  const { node, self, microbatches, window } = options;
  let path: Path | undefined;
  return {
    innerStep: async ({ round, step, learningRate }, signal) => {
      await node.compute.discard({ path: self });
      path = openPath(node, { name: self, driver: self, round, step }, path);
      const current = path;
      const turn = inTurn();
      const stale: number[] = [];
      await inWindow(microbatches, window, signal, async (index, running) => {
        const microbatch = await turn(() => options.batch(round, step, index));
        const result = await runMicrobatch(node, current, microbatch, running);
        if (result.ok || running.aborted) return;
        if (result.code === 'stale-step') stale.push(index);
        else options.onLost(index, result.code);
      });
      if (signal.aborted) return reject('aborted');
      if (stale.length > 0 && current.losses.size === 0)
        return reject('stale-step', 'taken by the stages after this one before this node was started again');
      for (const index of stale) options.onLost(index, 'stale-step');
      if (current.losses.size === 0) return reject('nothing-trained');
      return finishStep(node, current, learningRate, signal);
    },
  };
}

async function finishStep(
  node: StageNode,
  path: Path,
  learningRate: number,
  signal: AbortSignal,
): Promise<Outcome<StepTaken>> {
  const ids = [...path.losses.keys()].sort((a, b) => a - b);
  const sums = await prepareStep(node, path, { ids, receipt: null }, signal);
  if (!sums.ok) return sums;
  const norm = sealNorm(node, path, ids.length, Math.sqrt(sumOf(sums.value)));
  return applyStep(node, path, { ...norm, learningRate }, signal);
}

/** Starts tasks 0 to count − 1 in order, at most `window` at a time; when one throws, all end and so does this. */
async function inWindow(
  count: number,
  window: number,
  signal: AbortSignal,
  task: (index: number, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const failed = new AbortController();
  const running = AbortSignal.any([signal, failed.signal]);
  let next = 0;
  const worker = async () => {
    while (next < count && !running.aborted) await task(next++, running);
  };
  const workers = Array.from({ length: Math.min(window, count) }, () =>
    worker().catch((error: unknown) => {
      failed.abort();
      return error as Error;
    }),
  );
  const error = (await Promise.all(workers)).find((result) => result !== undefined);
  if (error) throw error;
}
