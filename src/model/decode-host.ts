/** A stage's decode sessions as callers see them, wherever its weights live: in this thread, or behind a port. */

import type { Outcome } from '../std/outcome.ts';
import type { DecodeBatch, DecodeBatchResult } from './decode-batch.ts';

/** Calls run in the order they were made. */
export interface DecodeHost {
  /** `round` is the round whose w_r the session is pinned to; without it, the current one. See `DecodeStage`. */
  openSession(call: { readonly session: string; readonly round?: number }): Promise<Outcome<OpenedSession>>;
  decode(batch: DecodeBatch): Promise<DecodeBatchResult>;
  closeSession(session: string): Promise<void>;
}

export interface OpenedSession {
  readonly round: number;
  /** The engine: others of this class give the same bits, with as many threads. */
  readonly engineClass: string;
  /** Longest sequence in tokens. */
  readonly capacity: number;
}
