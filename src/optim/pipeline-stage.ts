/**
 * A stage's part in training through a pipeline, wherever its weights live: forward, backward into a sum of gradients
 * for each path, and an optimizer step over exactly the microbatches that the caller commits to. It knows no peers.
 */
import type { Outcome } from '../std/outcome.ts';

/** What enters a stage: token ids [n] with the embedding, rows of the residual stream [n·width] without. */
export type StageEntry = Int32Array | Float32Array;
/** What a stage's output is held against: labels [n] with the head, dL/dy [n·width] without. */
export type StageTarget = Int32Array | Float32Array;

export interface MicrobatchName {
  /** Whose gradients are summed together: one caller and one Driver. */
  readonly path: string;
  /** Unique within the path. */
  readonly id: string;
}

export interface BackwardResult {
  /** dL/dx [n·width]; null with the embedding. */
  readonly inputGradient: Float32Array | null;
  /** Mean cross-entropy per token in nats; null without the head. */
  readonly loss: number | null;
}

/** A microbatch in the sum of a step that was taken; counts are of the stage's own steps of the round. */
export interface SummedMicrobatch {
  readonly id: string;
  /** Steps taken when it went forward: its rows are of the weights after these. */
  readonly madeAt: number;
  /** Steps taken when its gradient in the sum was made. */
  readonly summedAt: number;
}

/**
 * Rows ([n·width] arrays of f32) that are passed in belong to the stage from then on, and those that come back to the
 * caller: nobody copies them on the way to another thread. Token ids and labels stay the caller's.
 *
 * forward and backward are refused with `wrong-shape` for arrays that are not one microbatch of this stage, and with
 * `too-many-paths` for a path too many; evaluateRows and evaluateLoss throw.
 */
export interface PipelineStage {
  /** y [n·width] at the local weights, of a stage without the head. Keeps the entry. `duplicate-microbatch`, `too-many-microbatches`. */
  forward(call: MicrobatchName & { readonly entry: StageEntry }): Promise<Outcome<Float32Array>>;
  /**
   * Recomputes forward and adds the gradients to the path's sum. `entry` is given where there was no forward (a stage
   * with the head). Between prepareStep and applyStep it answers, but the prepared sum stays as it is.
   * `unknown-microbatch`, `duplicate-microbatch`, `too-many-microbatches`.
   */
  backward(
    call: MicrobatchName & { readonly entry?: StageEntry; readonly target: StageTarget },
  ): Promise<Outcome<BackwardResult>>;
  /**
   * Makes the path's sum that of exactly these microbatches, computing again what was summed besides, and gives its
   * sum of squares by segment, in order. It can be called again with others before the step is applied.
   * `unknown-microbatch` when one of them never had its backward pass, `duplicate-microbatch` when one is named twice.
   */
  prepareStep(call: {
    readonly path: string;
    readonly ids: readonly string[];
  }): Promise<Outcome<readonly number[]>>;
  /**
   * AdamW with g = sum × gradientScale on the prepared sum, which it consumes, with all else that had its backward pass
   * on this path. Gives what was summed, in the order of the sum. `not-prepared`.
   */
  applyStep(call: {
    readonly path: string;
    readonly learningRate: number;
    readonly gradientScale: number;
  }): Promise<Outcome<readonly SummedMicrobatch[]>>;
  /** Forgets a path, or only the microbatches named (not yet prepared). */
  discard(call: { readonly path: string; readonly ids?: readonly string[] }): Promise<void>;
  /** w_r without gradients: y of a stage without the head. */
  evaluateRows(entry: StageEntry): Promise<Float32Array>;
  /** w_r without gradients: the mean loss of a stage with the head. */
  evaluateLoss(entry: StageEntry, labels: Int32Array): Promise<number>;
}
