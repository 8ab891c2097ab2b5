/**
 * Whether the rows that cross a stage boundary have a size that this boundary has seen: one message with absurd numbers
 * must not destroy a replica. It sees one number for each message, their root mean square, and knows no peers.
 *
 * The running estimate is of the logarithm, and each accepted value moves it by a step of bounded length (Huber's
 * estimator of location, followed stochastically): one message moves it by at most 2%, whatever it holds.
 */
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface NormGuardOptions {
  /** Largest ratio to the running estimate, either way. */
  readonly factorMax?: number;
  /** Values judged by the wide bounds alone, before there is an estimate. */
  readonly warmUp?: number;
  /** The wide bounds. */
  readonly rmsMin?: number;
  readonly rmsMax?: number;
}

export interface NormGuard {
  /** Accepts and learns, or refuses with `absurd-norm` and learns nothing. */
  check(rms: number): Outcome<void>;
  /** The weights have changed at once (another plan, a state fetched): judges by the wide bounds again for a while. */
  reset(): void;
  /** The running estimate, or undefined while warming up. */
  typicalRms(): number | undefined;
}

/**
 * Microbatches of one boundary differ by less than 3 from one to the next, and gradients fall by about 10 while training
 * begins, which the estimate follows. What is left beside that is room for spikes that honest training has. Below this
 * factor a hostile message weighs at most as 32 honest ones in a sum that is clipped afterwards.
 */
const factorMaxDefault = 32;
const warmUpDefault = 8;
/** Rows of a trained residual stream reach some thousands; gradients of a mean over 2^20 tokens go down to 1e-12. */
const rmsMinDefault = 1e-20;
const rmsMaxDefault = 1e5;

/** Differences count up to a factor of e, and move the estimate by this share of their logarithm. */
const followShare = 0.02;
const differenceMax = 1;

export function createNormGuard(options: NormGuardOptions = {}): NormGuard {
  const { factorMax = factorMaxDefault, warmUp = warmUpDefault } = options;
  const { rmsMin = rmsMinDefault, rmsMax = rmsMaxDefault } = options;
  const distanceMax = Math.log(factorMax);
  let first: number[] = [];
  let center: number | undefined;

  const refuse = (rms: number) => {
    const typical =
      center === undefined ? `${rmsMin} to ${rmsMax}` : `about ${Math.exp(center).toPrecision(3)}`;
    return reject('absurd-norm', `rows of size ${rms.toPrecision(3)}, and ${typical} is usual`);
  };

  return {
    check: (rms) => {
      if (!(rms >= rmsMin && rms <= rmsMax)) return refuse(rms);
      const size = Math.log(rms);
      if (center === undefined) {
        first.push(size);
        // The lower of two middle values: of numbers that grow beyond bounds, the smaller does less harm.
        if (first.length >= warmUp) center = first.sort((a, b) => a - b)[(first.length - 1) >> 1]!;
        return accept(undefined);
      }
      const difference = size - center;
      if (Math.abs(difference) > distanceMax) return refuse(rms);
      center += followShare * Math.min(Math.max(difference, -differenceMax), differenceMax);
      return accept(undefined);
    },
    reset: () => {
      first = [];
      center = undefined;
    },
    typicalRms: () => (center === undefined ? undefined : Math.exp(center)),
  };
}
