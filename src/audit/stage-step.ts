/**
 * Inner steps of a stage of several, made again from the rows that reached it: what the neighbours signed when they sent
 * them. It also says how far what the stage sent onward lies from what it should have sent, and a Driver's norm from that
 * of the gradients. Knows no signatures.
 */
import type { GradientSum } from '../optim/pipeline-gradients.ts';
import type { StageEntry, StageTarget } from '../optim/pipeline-stage.ts';
import { gradientScaleOf, type StageTrainer } from '../optim/stage-trainer.ts';
import { decodeRows, encodeRows, type RowCodec } from '../pipeline/row-codec.ts';
import { must } from '../std/assert.ts';

/** Rows are as they travelled, of one microbatch. */
export interface StageMicrobatch {
  /** Token ids with the embedding, rows of the residual stream without. */
  readonly entry: Int32Array | Uint8Array;
  /** Labels with the head, dL/dy without. */
  readonly target: Int32Array | Uint8Array;
  /** y as the stage sent it on; null with the head. */
  readonly sentRows: Uint8Array | null;
  /** dL/dx as it sent it back; null with the embedding. */
  readonly sentGradient: Uint8Array | null;
  /**
   * Own steps of the round that the stage had taken when it computed what it sent, and the gradient that is in the sum: fewer
   * than the number of the step itself only where another Driver's step came between. A later sum was made again.
   */
  readonly madeAt: number;
  readonly summedAt: number;
}

export interface StageStep {
  /** Those that the step named, in the order in which they were summed. */
  readonly microbatches: readonly StageMicrobatch[];
  readonly learningRate: number;
  /** Of the summed gradient of all stages, as the Driver signed it. */
  readonly norm: number;
  /** Σg² of the stages after this one, as they signed it, where the norm is this node's own: on the first stage. */
  readonly rest: number | null;
}

export interface StageRules {
  readonly codec: RowCodec;
  /** Elements of one microbatch's rows. */
  readonly rowElements: number;
  /** Largest norm of the mean gradient. */
  readonly clip: number;
}

export interface StageFinding {
  /** Largest relative L2 distance of an array that was sent from what should have been. */
  readonly rows: number;
  /** Largest relative distance of a norm from that of the gradients; of others' norms, how far they are too small. */
  readonly norm: number;
}

export interface StagePlaceInRound {
  /** Steps of the round, and AdamW's, before the first of these. */
  readonly step: number;
  readonly optimizerSteps: number;
}

/** Makes the steps on the trainer's weights, one after another. Every sum was made within them. */
export async function makeStageSteps(
  trainer: StageTrainer,
  steps: readonly StageStep[],
  place: StagePlaceInRound,
  rules: StageRules,
): Promise<StageFinding> {
  const sent: Sent = { furthest: 0 };
  const sums = new Map<StageStep, GradientSum>();
  let norm = 0;
  try {
    for (const [i, step] of steps.entries()) {
      // What was computed for a later step, before another Driver's came, was computed at these weights, too.
      for (const one of steps.slice(i)) await compute(trainer, one, place.step + i, rules, sums, sent);
      const sum = must(sums.get(step), 'a step of microbatches summed by now');
      const squares = trainer.sumSquares(sum).reduce((total, square) => total + square, 0);
      norm = Math.max(norm, normDistance(step, squares));
      const gradientScale = gradientScaleOf(step.norm, step.microbatches.length, rules.clip);
      const optimizerStep = place.optimizerSteps + i + 1;
      trainer.apply(sum, { learningRate: step.learningRate, gradientScale, step: optimizerStep });
      sums.delete(step);
      trainer.sums.give(sum);
    }
  } finally {
    for (const sum of sums.values()) trainer.sums.give(sum);
  }
  return { rows: sent.furthest, norm };
}

/** What the stage did for a step after so many of its own: gradients into the step's sum, and what it sent compared. */
async function compute(
  trainer: StageTrainer,
  step: StageStep,
  at: number,
  rules: StageRules,
  sums: Map<StageStep, GradientSum>,
  sent: Sent,
): Promise<void> {
  for (const one of step.microbatches) {
    if (one.madeAt !== at && one.summedAt !== at) continue;
    const sum = one.summedAt === at ? (sums.get(step) ?? trainer.sums.take()) : undefined;
    if (sum) sums.set(step, sum);
    const isSent = one.madeAt === at;
    const [entry, target] = contentOf(one, rules, sent);
    if (isSent && one.sentRows)
      compareRows(sent, await trainer.forward(entry, 'weights'), one.sentRows, rules);
    if (!sum && !one.sentGradient) continue;
    const { inputGradient } = await trainer.backward(entry, target, sum);
    if (isSent && one.sentGradient && inputGradient)
      compareRows(sent, inputGradient, one.sentGradient, rules);
  }
}

/** Rows that are none, which no honest stage takes, count as infinitely wrong and are computed as zeros. */
function contentOf(
  { entry, target }: StageMicrobatch,
  { codec, rowElements }: StageRules,
  sent: Sent,
): [StageEntry, StageTarget] {
  const numbers = (from: Int32Array | Uint8Array) => {
    if (from instanceof Int32Array) return from;
    const rows = decodeRows(from, codec, rowElements);
    if (rows.ok) return rows.value;
    sent.furthest = Number.POSITIVE_INFINITY;
    return new Float32Array(rowElements);
  };
  return [numbers(entry), numbers(target)];
}

/** Over all arrays so far: gradients are far smaller than rows, so each is measured by itself. */
interface Sent {
  furthest: number;
}

/** Rows are compared as they travel: half a unit of bf16 is no disagreement. */
function compareRows(sent: Sent, mine: Float32Array, claimed: Uint8Array, { codec }: StageRules): void {
  const travelled = decodeRows(encodeRows(mine, codec), codec, mine.length);
  const theirs = decodeRows(claimed, codec, mine.length);
  if (!travelled.ok || !theirs.ok) {
    sent.furthest = Number.POSITIVE_INFINITY;
    return;
  }
  let near = 0;
  let whole = 0;
  for (const [i, value] of travelled.value.entries()) {
    const off = theirs.value[i]! - value;
    near += off * off;
    whole += value * value;
  }
  if (near > 0) sent.furthest = Math.max(sent.furthest, orInfinite(Math.sqrt(near / whole)));
}

/**
 * A Driver's norm is that of all gradients. Another stage takes a step by any norm that is no smaller than its own
 * gradient's: a Driver can only make it shorter. A sum that was made again is not the one whose squares were sent.
 */
function normDistance({ norm, rest, microbatches }: StageStep, squares: number): number {
  if (microbatches.some(({ madeAt, summedAt }) => summedAt > madeAt)) return 0;
  const known = Math.sqrt(squares + (rest ?? 0));
  if (norm === known || (rest === null && norm > known)) return 0;
  return orInfinite(Math.abs(norm - known) / known);
}

function orInfinite(distance: number): number {
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
}
