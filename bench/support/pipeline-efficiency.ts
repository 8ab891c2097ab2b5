/** Steps through a pipeline in virtual time against what its slowest stage could do alone. It prints nothing. */
import { stream } from '../../sim/random.ts';
import { pipelineWindow } from '../../src/pipeline/driver.ts';
import { createVirtualPipeline, type StageCost } from './virtual-pipeline.ts';
import { createWanLink } from './wan-link.ts';

export interface EfficiencyOptions {
  readonly costs: readonly StageCost[];
  readonly rttMs: number;
  readonly microbatches: number;
  /** Measured, after one that is not. */
  readonly steps: number;
  readonly tokens: number;
  readonly width: number;
  readonly bytesPerSecond: number;
}

export interface Efficiency {
  readonly rttMs: number;
  readonly stepMs: number;
  readonly stepsPerSecond: number;
  /** Of the rate at which the slowest stage would make steps if it never waited for anything. */
  readonly efficiency: number;
  /** Of the time, the busiest stage was at work; the flush at the end of each step included. */
  readonly busiestUtilisation: number;
  /** Of the time in which the busiest stage had work. */
  readonly utilisationWithWork: number;
  readonly lost: number;
  /** Nobody fails here. */
  readonly falseFailovers: number;
}

export async function pipelineEfficiency(options: EfficiencyOptions): Promise<Efficiency> {
  const { costs, rttMs, microbatches, steps, tokens, width, bytesPerSecond } = options;
  const random = stream(1, 'link');
  const pipeline = createVirtualPipeline({
    seed: 1,
    costs,
    replicas: 1,
    microbatches,
    window: pipelineWindow(costs.length),
    shape: { tokens, width, vocabulary: 2, codec: 'bf16' },
    link: createWanLink({ random, rttMs, bytesPerSecond }),
  });
  const { clock, stages } = pipeline;
  const isHead = (stage: number) => stage === costs.length - 1;
  const slowestMs = Math.max(
    ...costs.map(({ forwardMs, backwardMs }, stage) => (isHead(stage) ? 0 : forwardMs) + backwardMs),
  );
  const run = async (step: number) => {
    let done = false;
    const taken = pipeline.innerStep(step).finally(() => {
      done = true;
    });
    await clock.run(Number.POSITIVE_INFINITY, () => done);
    const result = await taken;
    if (!result.ok || result.value.lost !== null) throw new Error(`step ${step}: ${JSON.stringify(result)}`);
  };
  await run(0);
  const queues = () => stages.map(([id]) => pipeline.node(id!).queue.stats());
  const before = queues();
  const startedMs = clock.nowMs();
  for (let step = 1; step <= steps; step++) await run(step);
  const wallMs = clock.nowMs() - startedMs;
  const work = queues().map(({ busyMs, idleWithWorkMs }, stage) => ({
    busyMs: busyMs - before[stage]!.busyMs,
    idleWithWorkMs: idleWithWorkMs - before[stage]!.idleWithWorkMs,
  }));
  const busiest = work.reduce((a, b) => (b.busyMs > a.busyMs ? b : a));
  const stepMs = wallMs / steps;
  return {
    rttMs,
    stepMs,
    stepsPerSecond: 1000 / stepMs,
    efficiency: (microbatches * slowestMs) / stepMs,
    busiestUtilisation: busiest.busyMs / wallMs,
    utilisationWithWork: busiest.busyMs / (busiest.busyMs + busiest.idleWithWorkMs),
    lost: pipeline.lost.length,
    falseFailovers: pipeline.failovers.length,
  };
}
