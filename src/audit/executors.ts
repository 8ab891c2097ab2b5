/**
 * Re-execution for whatever stage the prover holds: one re-executor at a time, for each takes as much memory as a replica,
 * and another one when a duty is about another stage. Calls run one after another.
 */
import { inTurn } from '../std/in-turn.ts';
import type { ReExecutor } from './re-execute.ts';

/** `create`: of one stage, from 0. */
export function createStageExecutors(create: (stage: number) => Promise<ReExecutor>): ReExecutor {
  const inOrder = inTurn();
  let current: { readonly stage: number; readonly executor: ReExecutor } | undefined;
  const close = async () => {
    const { executor } = current ?? {};
    current = undefined;
    await executor?.close();
  };
  const of = async (stage: number) => {
    if (current?.stage !== stage) {
      await close();
      current = { stage, executor: await create(stage) };
    }
    return current!.executor;
  };
  return {
    execute: (request) => inOrder(async () => (await of(request.stage)).execute(request)),
    nextFeedback: (request) => inOrder(async () => (await of(request.stage)).nextFeedback(request)),
    close: () => inOrder(close),
  };
}
