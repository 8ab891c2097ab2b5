/**
 * The scalars of one AdamW step, computed in f64 by multiplication, subtraction, division and square root only, so
 * that every JavaScript engine gives the same bits (Math.pow may not).
 */
import { assert } from '../../std/assert.ts';
import type { AdamWOptions } from './kernels.ts';

export interface AdamWConstants {
  /** 1 − learningRate·weightDecay. */
  readonly decay: number;
  readonly oneMinusBeta1: number;
  readonly oneMinusBeta2: number;
  /** learningRate / (1 − beta1^step). */
  readonly stepSize: number;
  /** √(1 − beta2^step). */
  readonly rootCorrection2: number;
}

/** base^exponent for a positive integer exponent, by squaring. */
function integerPower(base: number, exponent: number): number {
  let result = 1;
  let square = base;
  for (let rest = exponent; rest > 0; rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) result *= square;
    square *= square;
  }
  return result;
}

export function adamwConstants(options: AdamWOptions): AdamWConstants {
  const { learningRate, beta1, beta2, weightDecay, step } = options;
  assert(Number.isSafeInteger(step) && step >= 1, `AdamW counts steps from 1, not ${step}`);
  return {
    decay: 1 - learningRate * weightDecay,
    oneMinusBeta1: 1 - beta1,
    oneMinusBeta2: 1 - beta2,
    stepSize: learningRate / (1 - integerPower(beta1, step)),
    rootCorrection2: Math.sqrt(1 - integerPower(beta2, step)),
  };
}
