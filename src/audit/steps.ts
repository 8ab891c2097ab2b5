/** Which steps a claim says were made: batches by the sampler, rates by the schedule. Anybody can compute them. */
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import { learningRate, type ScheduleOptions } from '../optim/schedule.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import type { TrainingClaim } from './claim.ts';

/** What the network's manifest says of training. */
export interface StepRules extends ScheduleOptions {
  readonly innerSteps: number;
  readonly batch: number;
  readonly sequence: number;
  readonly microbatches: number;
}

export interface ClaimedStep {
  readonly batches: readonly Batch[];
  readonly learningRate: number;
}

/** Inner steps [from, to) of the claim's round. Rejects with the dataset's own errors. */
export async function stepsOf(
  {
    claim,
    rules,
    dataset,
  }: { readonly claim: TrainingClaim; readonly rules: StepRules; readonly dataset: Dataset },
  from: number,
  to: number,
): Promise<ClaimedStep[]> {
  const { nodeId, round } = claim;
  const steps: ClaimedStep[] = [];
  for (let step = from; step < to; step++) {
    const batches: Batch[] = [];
    for (let index = 0; index < rules.microbatches; index++) {
      const { tokens, labels } = await batchOf({ ...rules, dataset, nodeId, round, step, index });
      batches.push({ tokens, labels });
    }
    steps.push({ batches, learningRate: learningRate(rules, round * rules.innerSteps + step) });
  }
  return steps;
}
