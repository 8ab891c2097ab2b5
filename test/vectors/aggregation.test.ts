/**
 * Every `aggregation-*` fixture of the folder named by NEUROSHARD_FIXTURES (default: the project's copy): all rules and
 * the Nesterov trace of torch.optim.SGD, within 1e-5 relative, by norm.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { aggregate } from '../../src/diloco/aggregation/aggregate.ts';
import type { AggregationRule } from '../../src/diloco/aggregation/rules.ts';
import { createOracleMemory } from '../../src/tensor/kernels/oracle.ts';
import { createKernelMemory } from '../../src/tensor/kernels/wasm.ts';

interface Fixture {
  readonly n: number;
  readonly dim: number;
  readonly f: number;
  readonly contributions: readonly (readonly number[])[];
  readonly mean: readonly number[];
  readonly median: readonly number[];
  readonly trimmedMean: { k10: number; value10: number[]; kF: number; valueF: number[] };
  readonly krum: { scores: number[]; selected: number; value: number[] };
  readonly multiKrum: { m: number; selected: number[]; value: number[] };
  readonly centeredClipping: { tau: number; iterations: number; value: number[] };
  readonly geometricMedian: readonly number[];
  readonly nesterov: {
    lr: number;
    momentum: number;
    start: number[];
    gradients: number[][];
    parameters: number[][];
  };
}

const folder = process.env.NEUROSHARD_FIXTURES ?? join(import.meta.dirname, '..', 'fixtures');
const names = readdirSync(folder).filter((name) => /^aggregation-.*\.json$/.test(name));

function assertClose(actual: ArrayLike<number>, expected: readonly number[], what: string): void {
  assert.equal(actual.length, expected.length, what);
  const error = Math.hypot(...expected.map((value, i) => value - actual[i]!));
  const relative = error / Math.hypot(...expected);
  assert.ok(relative <= 1e-5, `${what}: ${relative}`);
}

/** Rules with the fixture's parameters, and the results they must give. */
function expectations(fixture: Fixture): [AggregationRule, readonly number[]][] {
  const { n, f, trimmedMean, centeredClipping } = fixture;
  return [
    [{ name: 'mean' }, fixture.mean],
    [{ name: 'median' }, fixture.median],
    [{ name: 'trimmed-mean', beta: 0.1 }, trimmedMean.value10],
    [{ name: 'trimmed-mean', beta: (trimmedMean.kF + 0.5) / n }, trimmedMean.valueF],
    [{ name: 'krum', hostile: f }, fixture.krum.value],
    [{ name: 'multi-krum', hostile: f, keep: fixture.multiKrum.m }, fixture.multiKrum.value],
    [
      { name: 'centered-clipping', tau: centeredClipping.tau, iterations: centeredClipping.iterations },
      centeredClipping.value,
    ],
    [{ name: 'geometric-median' }, fixture.geometricMedian],
  ];
}

it('there are fixtures', () => assert.ok(names.length >= 1, `none in ${folder}`));

for (const name of names) {
  const fixture = JSON.parse(readFileSync(join(folder, name), 'utf8')) as Fixture;
  for (const [implementation, create] of Object.entries({
    wasm: createKernelMemory,
    oracle: createOracleMemory,
  })) {
    describe(`${name}, ${implementation} kernels`, () => {
      const kernels = create({ bytes: 4 << 20 });
      for (const [rule, expected] of expectations(fixture)) {
        it(`${JSON.stringify(rule)}`, () => {
          const result = new Float32Array(fixture.dim);
          const report = aggregate({
            rule,
            contributions: fixture.contributions.map((row) => ({
              weight: 1,
              read: (start: number, out: Float32Array) => out.set(row.slice(start, start + out.length)),
            })),
            length: fixture.dim,
            kernels,
            write: (start, chunk) => result.set(chunk, start),
          });
          assertClose(result, expected, rule.name);
          if (rule.name === 'krum') assertClose(report.scores!, fixture.krum.scores, 'scores');
          if (rule.name === 'krum') assert.deepEqual(report.selected, [fixture.krum.selected]);
          if (rule.name === 'multi-krum') assert.deepEqual(report.selected, fixture.multiKrum.selected);
        });
      }

      it('Nesterov trace', () => {
        const { lr, momentum, start, gradients, parameters } = fixture.nesterov;
        const put = (values: readonly number[]) => {
          const view = kernels.allocF32(values.length);
          view.set(values);
          return view;
        };
        const w = put(start);
        const v = kernels.allocF32(start.length);
        for (const [step, gradient] of gradients.entries()) {
          kernels.outerStep(w, v, put(gradient), lr, momentum);
          assertClose(w, parameters[step]!, `step ${step}`);
        }
      });
    });
  }
}
