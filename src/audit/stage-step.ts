/**
 * One inner step of a stage of several, made again from the rows that reached it: what the neighbours signed when they
 * sent them. It also says how far what the stage sent onward lies from what it should have sent. Knows no signatures.
 */
import type { StageEntry, StageTarget } from '../optim/pipeline-stage.ts';
import type { StageTrainer } from '../optim/stage-trainer.ts';
import { decodeRows, encodeRows, type RowCodec } from '../pipeline/row-codec.ts';

export interface StageMicrobatch {
  /** Token ids with the embedding, rows of the residual stream without. */
  readonly entry: StageEntry;
  /** Labels with the head, dL/dy without. */
  readonly target: StageTarget;
  /** y as the stage sent it on; absent with the head. */
  readonly sentRows?: Float32Array;
  /** dL/dx as it sent it back; absent with the embedding. */
  readonly sentGradient?: Float32Array;
}

export interface StageStep {
  /** Those that the step named, in its order. */
  readonly microbatches: readonly StageMicrobatch[];
  readonly learningRate: number;
  /** `gradientScaleOf` the global norm, which the Driver signed. */
  readonly gradientScale: number;
}

/** Σ off² and Σ value² over rows. */
export interface RowSums {
  off: number;
  whole: number;
}

/** Makes the step on the trainer's weights, and adds up what was sent. `step` counts AdamW's from 1. */
export async function makeStageStep(
  trainer: StageTrainer,
  { microbatches, learningRate, gradientScale }: StageStep,
  step: number,
  codec: RowCodec,
  sent: RowSums,
): Promise<void> {
  const sum = trainer.sums.take();
  try {
    for (const { entry, target, sentRows, sentGradient } of microbatches) {
      if (sentRows) addRows(sent, await trainer.forward(entry, 'weights'), sentRows, codec);
      const { inputGradient } = await trainer.backward(entry, target, sum);
      if (sentGradient && inputGradient) addRows(sent, inputGradient, sentGradient, codec);
    }
    trainer.apply(sum, { learningRate, gradientScale, step });
  } finally {
    trainer.sums.give(sum);
  }
}

/** Rows are compared as they travel: half a unit of bf16 is no disagreement. */
function addRows(sums: RowSums, mine: Float32Array, claimed: Float32Array, codec: RowCodec): void {
  const travelled = decodeRows(encodeRows(mine, codec), codec, mine.length);
  if (!travelled.ok || claimed.length !== mine.length) {
    sums.off = Number.POSITIVE_INFINITY;
    return;
  }
  for (const [i, value] of travelled.value.entries()) {
    const off = claimed[i]! - value;
    sums.off += off * off;
    sums.whole += value * value;
  }
}

/** Relative L2 distance; infinite for what is no number. */
export function rowDistance({ off, whole }: RowSums): number {
  if (off === 0) return 0;
  const distance = Math.sqrt(off / whole);
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
}
