/** One call of a decode session and its result, the same for the stage, the wire and the batch. */
import type { DecodeShape } from './decode-plan.ts';

/** Positions of a prefill call; calls with fewer are padded. */
export const chunkTokens = 32;

export interface DecodeCall {
  readonly session: string;
  /** Of the first row: the session's length, neither repeated nor skipped. */
  readonly position: number;
  /** Tokens [n] (a stage with the embedding) or rows [n·width] (any other), n from 1 to `chunkTokens`. */
  readonly entry: Int32Array | Float32Array;
  /** The shape to compute it in, to repeat a call; chosen by the stage when left out. */
  readonly shape?: DecodeShape;
}

export interface DecodeResult {
  /** The last position's logits [V] (a stage with the head) or the output rows [n·width]. */
  readonly output: Float32Array;
  readonly shape: DecodeShape;
}

export function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}
