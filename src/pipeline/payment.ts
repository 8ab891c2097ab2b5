/**
 * What serving and asking for decode calls has to do with pay, as the pipeline sees it: who serves asks a meter before each
 * call, who asks is told what was answered and may settle what it owes. Positions are all it counts; prices, receipts and
 * the ledger are not known here.
 */
import type { NodeId } from '../net/transport.ts';
import type { Outcome } from '../std/outcome.ts';

/** Refused until the caller has paid; nothing was computed. */
export const paymentRequired = 'payment-required';

/** Of a node that serves. */
export interface ServiceMeter {
  /** Counts positions that are about to be computed for a peer: `payment-required` counts nothing. */
  take(owner: NodeId, positions: number): Outcome<void>;
  /** They were not computed after all. */
  giveBack(owner: NodeId, positions: number): void;
}

/** Of a node that asks. */
export interface ServicePayer {
  /** A replica has answered for so many positions. */
  answered(node: NodeId, stage: number, positions: number): void;
  /** A replica refuses to go on unpaid. Accepted: it was paid, ask again. `payment-required`: it cannot be. */
  settle(node: NodeId, stage: number, signal?: AbortSignal): Promise<Outcome<void>>;
}
