/** The training policy that a command's options ask for: `swarm` and `train` must mean the same by the same options. */
import type { ModelConfig } from '../model/config.ts';
import { defaultTraining, forRounds, type TrainingPolicy } from '../peer/policy.ts';

export interface TrainingChoice {
  readonly innerSteps: number;
  /** Inner steps over which the rate decays. */
  readonly totalSteps: number;
  readonly batch?: number;
  readonly learningRate?: number;
  /** Whether nodes train apart and average, as they do unless said otherwise. */
  readonly averages?: boolean;
  readonly stages?: number;
  readonly microbatches?: number;
  readonly activations?: TrainingPolicy['activations'];
}

export function chooseTraining(model: ModelConfig, choice: TrainingChoice): TrainingPolicy {
  const defaults = forRounds(defaultTraining(model), choice.innerSteps, choice.averages ?? true);
  return {
    ...defaults,
    totalSteps: choice.totalSteps,
    batch: choice.batch ?? defaults.batch,
    peakLearningRate: choice.learningRate ?? defaults.peakLearningRate,
    stages: choice.stages ?? defaults.stages,
    microbatches: choice.microbatches ?? defaults.microbatches,
    activations: choice.activations ?? defaults.activations,
  };
}
