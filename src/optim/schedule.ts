/**
 * Learning-rate schedule: linear warm-up, then cosine decay to a floor. The step is the network-wide inner step
 * (round · innerSteps + step), so every node, and every auditor, computes the same rate.
 */
import { sineCosine } from '../std/elementary.ts';

export interface ScheduleOptions {
  readonly peakLearningRate: number;
  readonly warmupSteps: number;
  /** The rate stays at `floorRatio · peak` from here on. */
  readonly totalSteps: number;
  readonly floorRatio: number;
}

/** Rate of 0-based step. Bit-equal everywhere: arithmetic is +, −, ×, ÷ on f64. */
export function learningRate(options: ScheduleOptions, step: number): number {
  const { peakLearningRate, warmupSteps, totalSteps, floorRatio } = options;
  if (step < warmupSteps) return (peakLearningRate * (step + 1)) / warmupSteps;
  const span = Math.max(1, totalSteps - warmupSteps);
  const progress = Math.min(1, (step - warmupSteps) / span);
  const [, cosine] = sineCosine(Math.PI * progress);
  const decay = 0.5 * (1 + cosine);
  return peakLearningRate * (floorRatio + (1 - floorRatio) * decay);
}
