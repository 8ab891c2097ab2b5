/**
 * What a hostile contributor sends in the place of its pseudo-gradient, as the literature defines it. Colluders know
 * all honest contributions (the worst case). Pure: vectors in, a vector out; `label-flip` and `copycat` are not
 * vectors and live in `hostile-node.ts`.
 * Sources: Baruch et al. 2019 (ALIE), Xie et al. 2020 (inner-product manipulation), Blanchard et al. 2017 (Gaussian).
 */
import type { AttackName } from '../src/cli/shared-options.ts';
import { type Random, uniform } from '../src/std/random.ts';

/** Attacks that need the honest contributions of the round before they can be made. */
export const omniscient: ReadonlySet<AttackName> = new Set(['alie', 'inner-product', 'gaussian', 'copycat']);

export const defaultFactor: Readonly<Record<AttackName, number>> = {
  'sign-flip': 10,
  scaled: 10,
  gaussian: 10,
  alie: 1,
  'inner-product': 1,
  'label-flip': 1,
  constant: 10,
  zero: 1,
  copycat: 1,
};

export interface AttackInput {
  /** What honest work would have contributed. */
  readonly own: Float32Array;
  /** Contributions of the honest nodes of this round; empty when none has come. */
  readonly honest: readonly Float32Array[];
  /** Members in all, and how many of them collude. */
  readonly members: number;
  readonly hostile: number;
  readonly factor: number;
  readonly random: Random;
}

type VectorAttack = Exclude<AttackName, 'label-flip' | 'copycat'>;

export const attacks: Readonly<Record<VectorAttack, (input: AttackInput) => Float32Array>> = {
  'sign-flip': ({ own, factor }) => own.map((value) => -factor * value),
  scaled: ({ own, factor }) => own.map((value) => factor * value),
  gaussian: ({ own, honest, factor, random }) => {
    const sigma = factor * rootMeanSquare(honest[0] ?? own);
    return own.map(() => sigma * normal(random));
  },
  alie: ({ own, honest, members, hostile, factor }) => {
    const rows = honest.length > 0 ? honest : [own];
    const z = factor * normalQuantile((members - Math.floor(members / 2 + 1)) / (members - hostile));
    return own.map((_, i) => {
      const [mean, deviation] = momentsAt(rows, i);
      return mean - z * deviation;
    });
  },
  'inner-product': ({ own, honest, factor }) => {
    const rows = honest.length > 0 ? honest : [own];
    return own.map((_, i) => -factor * momentsAt(rows, i)[0]);
  },
  constant: ({ own, factor }) => new Float32Array(own.length).fill(factor * rootMeanSquare(own)),
  zero: ({ own }) => new Float32Array(own.length),
};

function momentsAt(rows: readonly Float32Array[], i: number): [mean: number, deviation: number] {
  let sum = 0;
  let squares = 0;
  for (const row of rows) {
    sum += row[i]!;
    squares += row[i]! * row[i]!;
  }
  const mean = sum / rows.length;
  return [mean, Math.sqrt(Math.max(0, squares / rows.length - mean * mean))];
}

function rootMeanSquare(row: Float32Array): number {
  let squares = 0;
  for (const value of row) squares += value * value;
  return Math.sqrt(squares / row.length);
}

/** Box and Muller 1958. */
function normal(random: Random): number {
  const radius = Math.sqrt(-2 * Math.log(1 - uniform(random)));
  return radius * Math.cos(2 * Math.PI * uniform(random));
}

/** Inverse of the normal distribution function by bisection on its series; p in (0, 1). */
export function normalQuantile(p: number): number {
  let low = -8;
  let high = 8;
  for (let i = 0; i < 80; i++) {
    const middle = (low + high) / 2;
    if (normalDistribution(middle) < p) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Φ(x) = ½ + φ(x)·Σ x^(2k+1) / (1·3·…·(2k+1)) (Marsaglia 2004). */
function normalDistribution(x: number): number {
  let term = x;
  let sum = x;
  for (let k = 1; k < 200; k++) {
    term *= (x * x) / (2 * k + 1);
    sum += term;
  }
  return 0.5 + (sum * Math.exp((-x * x) / 2)) / Math.sqrt(2 * Math.PI);
}
