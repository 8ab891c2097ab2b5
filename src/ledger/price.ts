/**
 * What serving costs: how an amount is divided among those on a path, and from it the price of one position at each stage.
 * Integers only, so that who pays and who is paid come to the same sum. Knows no escrow and no receipt.
 */
import { shareOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { Amount } from './tables.ts';

export interface Shares {
  readonly driver: Amount;
  /** Of each. */
  readonly worker: Amount;
  readonly validator: Amount;
}

type SharePolicy = Pick<LedgerPolicy, 'driverShare' | 'validatorShare'>;

/**
 * All of `rest` among a Driver, so many Workers and a Validator; what divides unevenly is the Driver's. Without Workers
 * Driver and Validator share their part.
 */
export function divide(rest: Amount, workers: number, policy: SharePolicy): Shares {
  const ofDriver = shareOf(rest, policy.driverShare);
  // A policy may give both more than there is.
  let ofValidator = shareOf(rest, policy.validatorShare);
  if (ofValidator > rest - ofDriver) ofValidator = rest - ofDriver;
  const ofWorkers = rest - ofDriver - ofValidator;
  const each = ofWorkers / BigInt(workers === 0 ? 2 : workers);
  const given = workers === 0 ? 2n * each : BigInt(workers) * each;
  const more = workers === 0 ? each : 0n;
  return { driver: ofDriver + more + ofWorkers - given, worker: each, validator: ofValidator + more };
}

/** Positions that `tokenPrice` is for: a price in micro-NEURO for them is one in nano-NEURO for each. */
export const pricedPositions = 1000n;

/** Nano-NEURO for one position at each stage. Their sum is the policy's price. */
export function stagePrices(
  stages: number,
  policy: SharePolicy & Pick<LedgerPolicy, 'tokenPrice'>,
): readonly Amount[] {
  const price = BigInt(policy.tokenPrice);
  if (stages === 1) return [price];
  const { driver, worker, validator } = divide(price, stages - 2, policy);
  return Array.from({ length: stages }, (_, stage) =>
    stage === 0 ? driver : stage === stages - 1 ? validator : worker,
  );
}

/** Micro-NEURO for so many tokens through all stages, rounded up: what a gateway asks of its clients. */
export function priceOf(tokens: number, { tokenPrice }: Pick<LedgerPolicy, 'tokenPrice'>): Amount {
  return (BigInt(tokens) * BigInt(tokenPrice) + pricedPositions - 1n) / pricedPositions;
}
