import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { type Random, seededRandom, uniform } from '../../std/random.ts';
import { createOracleMemory } from '../../tensor/kernels/oracle.ts';
import { createKernelMemory } from '../../tensor/kernels/wasm.ts';
import { createBlob, decodeRange, encodeRange } from '../compression/blob.ts';
import { aggregate } from './aggregate.ts';
import { oracleAggregate } from './oracle.ts';
import {
  type AggregationRule,
  type AggregatorName,
  defaultRuleFor,
  ruleFor,
  toleratedHostile,
} from './rules.ts';
import { contributionsMax } from './stream.ts';

const kernels = createKernelMemory({ bytes: 16 << 20 });

/** Every rule; Krum ones for n ≥ 5 only. */
const rules: readonly AggregationRule[] = [
  { name: 'mean' },
  { name: 'median' },
  { name: 'trimmed-mean', beta: 0.2 },
  { name: 'krum' },
  { name: 'multi-krum' },
  { name: 'centered-clipping', iterations: 5 },
  { name: 'geometric-median' },
  { name: 'clipped-centering' },
  { name: 'clipped-leave-one-out' },
];
const robust = rules.filter(({ name }) => name !== 'mean');
const needsFive = (rule: AggregationRule) => rule.name === 'krum' || rule.name === 'multi-krum';

interface RunOptions {
  readonly weights?: readonly number[];
  readonly chunkLength?: number;
  readonly memory?: typeof kernels;
}

function run(rule: AggregationRule, rows: readonly Float32Array[], options: RunOptions = {}): Float32Array {
  const length = rows[0]!.length;
  const result = new Float32Array(length);
  let next = 0;
  aggregate({
    rule,
    contributions: rows.map((row, i) => ({
      weight: options.weights?.[i] ?? 1,
      read: (start, out) => out.set(row.subarray(start, start + out.length)),
    })),
    length,
    kernels: options.memory ?? kernels,
    ...(options.chunkLength === undefined ? {} : { chunkLength: options.chunkLength }),
    write: (start, chunk) => {
      assert.equal(start, next);
      next += chunk.length;
      result.set(chunk, start);
    },
  });
  assert.equal(next, length);
  return result;
}

const norm = (x: ArrayLike<number>) =>
  Math.sqrt(Array.from(x).reduce((sum, value) => sum + value * value, 0));
const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
  norm(Array.from(a, (value, i) => value - b[i]!));

/** n rows that share a direction, as honest pseudo-gradients do. */
function honestRows(n: number, length: number, random: Random, noise = 1): Float32Array[] {
  const common = Float32Array.from({ length }, () => uniform(random) - 0.5);
  return Array.from({ length: n }, () => common.map((value) => value + noise * (uniform(random) - 0.5)));
}

const randomOf = (seed: number) => seededRandom(new Uint8Array(new Uint32Array([seed, 1, 2, 3]).buffer));

describe('aggregation: against the f64 oracle', () => {
  for (const rule of rules) {
    it(`${rule.name}`, () => {
      // Where the geometric median is a row or a whole segment, Weiszfeld's iteration takes for ever: not compared.
      const isGeometric = rule.name === 'geometric-median';
      const shapes = fc.record({
        n: fc.integer({ min: needsFive(rule) ? 5 : isGeometric ? 3 : 1, max: contributionsMax }),
        length: fc.constantFrom(...(isGeometric ? [30, 300] : [1, 3, 17, 4096, 9001])),
        seed: fc.nat(),
        hostile: fc.boolean(),
      });
      fc.assert(
        fc.property(shapes, ({ n, length, seed, hostile }) => {
          const random = randomOf(seed);
          const rows = honestRows(n, length, random);
          if (hostile) rows[n - 1] = rows[n - 1]!.map((value) => -50 * value);
          const weights = rows.map(() => 1 + uniform(random));
          const expected = oracleAggregate(
            rule,
            rows.map((row) => Array.from(row)),
            weights,
          );
          const scale = norm(expected) + 1e-3 * norm(rows[0]!);
          assert.ok(distance(run(rule, rows, { weights }), expected) <= 1e-5 * scale);
        }),
        { numRuns: 20 },
      );
    });
  }
});

describe('aggregation: bits', () => {
  it('are the same for every chunk size and in both implementations of the kernels', () => {
    const rows = honestRows(7, 40_000, randomOf(1));
    const oracle = createOracleMemory({ bytes: 16 << 20 });
    for (const rule of rules) {
      const whole = run(rule, rows);
      assert.deepEqual(run(rule, rows, { chunkLength: 4096 }), whole, rule.name);
      assert.deepEqual(run(rule, rows, { chunkLength: 65_536 }), whole, rule.name);
      assert.deepEqual(run(rule, rows, { memory: oracle }), whole, rule.name);
    }
  });

  it('leave the memory as it was', () => {
    const position = kernels.mark();
    for (const rule of rules) run(rule, honestRows(5, 100, randomOf(2)));
    assert.equal(kernels.mark(), position);
    assert.throws(() => run({ name: 'krum' }, honestRows(4, 10, randomOf(2))), { code: 'too-few-for-krum' });
    assert.equal(kernels.mark(), position);
  });
});

describe('aggregation: the worked example', () => {
  const rows = [...Array<number[]>(3).fill([0.1, 0.2, 0.1, 0.15]), [100, -100, 50, -50]].map((row) =>
    Float32Array.from(row),
  );
  const honest = [0.1, 0.2, 0.1, 0.15];
  const close = (actual: Float32Array, expected: readonly number[]) => {
    for (const [i, value] of expected.entries()) {
      assert.ok(
        Math.abs(actual[i]! - value) <= 1e-6 * Math.max(1, Math.abs(value)),
        `${actual} is not ${expected}`,
      );
    }
  };

  it('mean, trimmed mean with one dropped, median', () => {
    close(run({ name: 'mean' }, rows), [25.075, -24.85, 12.575, -12.3875]);
    close(run({ name: 'trimmed-mean', beta: 0.25 }, rows), honest);
    close(run({ name: 'trimmed-mean', beta: 0 }, rows), honest);
    close(run({ name: 'median' }, rows), honest);
  });

  it('rules that clip by distance stay where all honest rows agree', () => {
    for (const name of ['clipped-centering', 'geometric-median'] as const) close(run({ name }, rows), honest);
  });
});

describe('aggregation: one hostile row', () => {
  const attacks: Record<string, (own: Float32Array, honestMean: Float32Array) => Float32Array> = {
    'sign-flip': (own) => own.map((value) => -10 * value),
    huge: (own) => own.map((value) => 1e30 * value),
    'against the mean': (_own, honestMean) => honestMean.map((value) => -value),
    'one weight': (own) => own.map((value, i) => (i === 0 ? 1e6 : value)),
    zero: (own) => own.map(() => 0),
  };

  for (const rule of robust) {
    it(`moves ${rule.name} no further than honest rows differ, whatever its size`, () => {
      for (const n of [5, 8]) {
        const rows = honestRows(n - 1, 5000, randomOf(n));
        const honestMean = run({ name: 'mean' }, rows);
        const spread = Math.max(...rows.map((row) => distance(row, honestMean)));
        for (const [attack, make] of Object.entries(attacks)) {
          for (const place of [0, n - 1]) {
            const all = rows.toSpliced(place, 0, make(rows[0]!, honestMean));
            const moved = distance(run(rule, all), honestMean);
            // A zero row lies closer to all honest rows than they to each other, and single Krum takes one row: it is
            // bounded, but not by the spread.
            if (rule.name === 'krum' && attack === 'zero') {
              assert.ok(moved <= norm(honestMean));
              continue;
            }
            // Clipping by norm alone lets a row of ordinary length through: at most 2/n of that length.
            const bound =
              rule.name === 'clipped-leave-one-out' ? spread + (2 / n) * norm(rows[0]!) : 1.05 * spread;
            assert.ok(moved <= bound, `${attack} at ${place} of ${n}: ${moved}, honest spread ${spread}`);
          }
        }
      }
    });
  }

  it('moves the mean anywhere', () => {
    const rows = honestRows(5, 100, randomOf(3));
    rows[4] = rows[4]!.map((value) => 1e6 * value);
    assert.ok(norm(run({ name: 'mean' }, rows)) > 1e5 * norm(rows[0]!));
  });

  it('cannot heap its length on a few weights of a sparse aggregate', () => {
    const length = 32 * 4096;
    const random = randomOf(4);
    const shape = { codec: 'sparse', length } as const;
    const viaSparse = (values: Float32Array) => {
      const position = kernels.mark();
      const x = kernels.allocF32(length);
      x.set(values);
      const blob = createBlob('sparse', length);
      encodeRange(blob, shape, 0, x, kernels);
      decodeRange(blob, shape, 0, x, kernels);
      const decoded = x.slice();
      kernels.reset(position);
      return decoded;
    };
    const rows = honestRows(4, length, random).map(viaSparse);
    const heaped = new Float32Array(length).fill(1e-6);
    heaped[77] = 1e5;
    const result = run(defaultRuleFor('sparse'), [...rows, viaSparse(heaped)]);
    const usual = norm(rows[0]!) / Math.sqrt(32);
    assert.ok(Math.abs(result[77]!) <= (2.1 * usual) / 5, `${result[77]} beside blocks of length ${usual}`);
  });
});

describe('aggregation: honest rows alone', () => {
  it('defaults stay close to the mean', () => {
    for (const n of [1, 2, 3, 4, 8, 16]) {
      const rows = honestRows(n, 5000, randomOf(n));
      const mean = run({ name: 'mean' }, rows);
      for (const codec of ['f32', 'sparse'] as const) {
        const error = distance(run(defaultRuleFor(codec), rows), mean) / norm(mean);
        assert.ok(error < 0.03, `${codec}, n = ${n}: ${error}`);
      }
    }
  });

  it('give themselves back when there is one', () => {
    const [row] = honestRows(1, 5000, randomOf(9));
    for (const rule of rules.filter((rule) => !needsFive(rule)))
      assert.deepEqual(run(rule, [row!]), row, rule.name);
  });

  it('survive when all are equal, or zero', () => {
    const [row] = honestRows(1, 300, randomOf(10));
    for (const rule of rules) {
      const result = run(rule, Array(6).fill(row));
      assert.ok(distance(result, row!) <= 1e-6 * norm(row!), rule.name);
      assert.ok(
        run(rule, Array(6).fill(new Float32Array(300))).every((value) => value === 0),
        rule.name,
      );
    }
  });

  it('count by their weights in mean, clipping and geometric median, and not in order statistics', () => {
    const rows = honestRows(5, 500, randomOf(11));
    const weights = [3, 1, 1, 1, 1];
    const weighs = rules.filter((rule) => distance(run(rule, rows, { weights }), run(rule, rows)) > 0);
    assert.deepEqual(
      weighs.map(({ name }) => name),
      ['mean', 'centered-clipping', 'geometric-median', 'clipped-centering', 'clipped-leave-one-out'],
    );
  });
});

describe('aggregation: the choice of a rule', () => {
  it('says when Krum would defend against nobody', () => {
    assert.deepEqual(ruleFor('krum', 'f32', 4), { rule: { name: 'clipped-centering' }, insteadOf: 'krum' });
    assert.deepEqual(ruleFor('krum', 'f32', 5), { rule: { name: 'krum' } });
    assert.deepEqual(ruleFor('default', 'sparse', 5), { rule: { name: 'clipped-leave-one-out' } });
  });

  it('is honest about small n', () => {
    const tolerated = (aggregator: AggregatorName) =>
      [1, 2, 3, 4, 5, 7, 8, 16].map((n) => toleratedHostile(aggregator, 'f32', n));
    assert.deepEqual(tolerated('mean'), [0, 0, 0, 0, 0, 0, 0, 0]);
    assert.deepEqual(tolerated('default'), [0, 0, 1, 1, 2, 3, 3, 7]);
    assert.deepEqual(tolerated('trimmed-mean'), [0, 0, 1, 1, 1, 1, 1, 3]);
    assert.deepEqual(tolerated('krum'), [0, 0, 1, 1, 1, 2, 2, 6]);
  });
});
