/**
 * Whether the rows that cross a stage boundary have a size that this boundary has seen: one message with absurd numbers
 * must not destroy a replica. It sees one number for each message, their root mean square, and knows no peers.
 *
 * The running estimate is of the logarithm, and each accepted value moves it by a step of bounded length (Huber's
 * estimator of location, followed stochastically): one message moves it by at most 5%, whatever it holds.
 */
import { must } from '../std/assert.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface NormGuardOptions {
  /** Largest ratio to the running estimate; smaller values do no harm. */
  readonly factorMax?: number;
  /** The same for the first values after the weights have changed at once. */
  readonly factorMaxAfterChange?: number;
  /** Values from which an estimate begins. */
  readonly warmUp?: number;
  /** Largest value while there is no estimate at all. */
  readonly rmsMax?: number;
}

export interface NormGuard {
  /** Accepts and learns, or refuses with `absurd-norm` and learns nothing. */
  check(rms: number): Outcome<void>;
  /** The weights have changed at once (an outer step, a state fetched): a new estimate begins, near the one before. */
  reset(): void;
  /** The running estimate, or undefined before there was one. */
  typicalRms(): number | undefined;
}

/**
 * Microbatches of one boundary differ by less than 3 from one to the next, and gradients fall by about 10 while training
 * begins, which the estimate follows. What is left beside that is room for spikes that honest training has. Below this
 * factor a hostile message weighs at most as 32 honest ones in a sum that is clipped afterwards.
 */
const factorMaxDefault = 32;
/** One early outer step has been seen to change gradients by 35. */
const factorMaxAfterChangeDefault = 1024;
const warmUpDefault = 8;
/** Rows of a trained residual stream reach some thousands. */
const rmsMaxDefault = 1e5;

/**
 * Differences count up to a factor of e, and move the estimate by this share of their logarithm. At 2% the residual stream
 * of a model in its first 100 steps, after a short warm-up, outran the estimate by 32.
 */
const followShare = 0.05;
const differenceMax = 1;
/** In place of the logarithm of zero: rows that are nothing. */
const rmsLeast = 1e-30;

export function createNormGuard(options: NormGuardOptions = {}): NormGuard {
  const { factorMax = factorMaxDefault, warmUp = warmUpDefault, rmsMax = rmsMaxDefault } = options;
  const { factorMaxAfterChange = factorMaxAfterChangeDefault } = options;
  /** Values since the last change of the weights, until they make an estimate. */
  let first: number[] = [];
  let isWarm = false;
  let center: number | undefined;

  const most = () => {
    if (center === undefined) return rmsMax;
    return Math.min(rmsMax, Math.exp(center) * (isWarm ? factorMax : factorMaxAfterChange));
  };

  return {
    check: (rms) => {
      if (!(rms >= 0 && rms <= most()))
        return reject('absurd-norm', `rows of size ${rms.toPrecision(3)}, at most ${most().toPrecision(3)}`);
      const size = Math.log(Math.max(rms, rmsLeast));
      if (isWarm) {
        const difference = size - must(center, 'an estimate');
        center =
          must(center, 'an estimate') +
          followShare * Math.min(Math.max(difference, -differenceMax), differenceMax);
        return accept(undefined);
      }
      first.push(size);
      if (first.length < warmUp) return accept(undefined);
      // The lower of two middle values: of numbers that grow beyond bounds, the smaller does less harm.
      center = first.sort((a, b) => a - b)[(first.length - 1) >> 1]!;
      isWarm = true;
      return accept(undefined);
    },
    reset: () => {
      // Nothing was accepted since the last change: what was usual once must not keep everything out for ever.
      if (!isWarm && first.length === 0) center = undefined;
      first = [];
      isWarm = false;
    },
    typicalRms: () => (center === undefined ? undefined : Math.exp(center)),
  };
}
