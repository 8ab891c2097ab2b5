/**
 * Elementary functions from +, −, × and ÷ on doubles, which every JavaScript engine rounds alike; the host's Math.exp,
 * log, sin and cos may differ in the last bit between engines. For results that are hashed or replayed elsewhere.
 */
import { assert } from './assert.ts';

const ln2 = Math.LN2;
const ln2Low = 2.3190468138462996e-17;

/** ln x for finite x > 0: x = m·2^e with m in [√½, √2), ln m = 2·atanh((m − 1)/(m + 1)) by its series. */
export function logarithm(x: number): number {
  assert(x > 0 && Number.isFinite(x), 'logarithm of a number that has none');
  let mantissa = x;
  let exponent = 0;
  for (; mantissa >= Math.SQRT2; exponent++) mantissa /= 2;
  for (; mantissa < Math.SQRT1_2; exponent--) mantissa *= 2;
  const t = (mantissa - 1) / (mantissa + 1);
  const square = t * t;
  let sum = 0;
  for (let k = 41; k >= 1; k -= 2) sum = sum * square + 1 / k;
  return exponent * ln2 + (exponent * ln2Low + 2 * t * sum);
}

/** e^x for |x| < 700: x = k·ln 2 + r with |r| ≤ ln 2 / 2, e^r by its Taylor series. */
export function exponential(x: number): number {
  assert(Math.abs(x) < 700, 'exponential out of range');
  const k = Math.floor(x / ln2 + 0.5);
  const r = x - k * ln2 - k * ln2Low;
  let sum = 1;
  for (let n = 20; n >= 1; n--) sum = 1 + (sum * r) / n;
  for (let i = 0; i < k; i++) sum *= 2;
  for (let i = 0; i > k; i--) sum /= 2;
  return sum;
}

/** π/2 in three parts, the first two of 33 bits: multiples below 2^20 of them are exact (fdlibm, e_rem_pio2.c). */
const halfPiHigh = 1.5707963267341256;
const halfPiMiddle = 6.077100506303966e-11;
const halfPiLow = 2.0222662487959506e-21;

/** [sin r, cos r] for |r| ≤ π/4 by their Taylor series. */
function sineCosineReduced(r: number): [number, number] {
  const square = r * r;
  let sine = 1;
  let cosine = 1;
  for (let n = 20; n >= 2; n -= 2) {
    sine = 1 - (sine * square) / (n * (n + 1));
    cosine = 1 - (cosine * square) / (n * (n - 1));
  }
  return [sine * r, cosine];
}

/** [sin x, cos x] for 0 ≤ x ≤ 2^20, within 1e-15 absolute. */
export function sineCosine(x: number): [number, number] {
  assert(x >= 0 && x <= 1_048_576, 'angle out of range');
  const quadrant = Math.floor(x / halfPiHigh + 0.5);
  const r = x - quadrant * halfPiHigh - quadrant * halfPiMiddle - quadrant * halfPiLow;
  const [sine, cosine] = sineCosineReduced(r);
  switch (quadrant % 4) {
    case 0:
      return [sine, cosine];
    case 1:
      return [cosine, -sine];
    case 2:
      return [-sine, -cosine];
    default:
      return [-cosine, sine];
  }
}
