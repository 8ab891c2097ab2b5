/** One contract for both implementations, and the promise that they give the same bits on any finite input. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { buildKernelModule } from './build.ts';
import { type AdamWOptions, type KernelMemory, reductionBlock, rowsMax } from './kernels.ts';
import { type BlockLayout, encodedBytes } from './layout.ts';
import { createOracleMemory } from './oracle.ts';
import { sortingNetwork } from './sorting-network.ts';
import { createKernelMemory } from './wasm.ts';

const implementations = { wasm: createKernelMemory, oracle: createOracleMemory };
const bytes = 8 << 20;
const layouts: readonly BlockLayout[] = ['int8', 'int4', 'sparse'];

function put(memory: KernelMemory, values: ArrayLike<number>): Float32Array {
  const view = memory.allocF32(values.length);
  view.set(values);
  return view;
}

/** Bit patterns, every NaN alike: the payload of a NaN is the one thing wasm leaves open. */
function bitsOf(x: Float32Array): number[] {
  return Array.from(x, (value, i) =>
    Number.isNaN(value) ? -1 : new Uint32Array(x.slice(i, i + 1).buffer)[0]!,
  );
}

const adamwOptions: AdamWOptions = {
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  step: 1,
  gradientScale: 1,
};

for (const [name, create] of Object.entries(implementations)) {
  describe(`kernels: ${name}`, () => {
    const memory = create({ bytes });

    it('allocates zeroed memory that mark and reset give back', () => {
      const fresh = create({ bytes: 4096 });
      const position = fresh.mark();
      fresh.allocF32(3).fill(7);
      fresh.allocBytes(5).fill(9);
      fresh.reset(position);
      assert.deepEqual([...fresh.allocF32(3)], [0, 0, 0]);
      assert.deepEqual([...fresh.allocBytes(5)], [0, 0, 0, 0, 0]);
      assert.throws(() => create({ bytes: 1 << 17 }).allocF32(1 << 20), RangeError);
      assert.throws(() => fresh.reset(fresh.mark() + 64));
    });

    it('reduces', () => {
      const x = put(memory, [1, 2, 3, 4, 5, 6, 7]);
      const y = put(memory, [1, 1, 1, 1, 2, 2, -2]);
      assert.equal(memory.sumSquares(x), 140);
      assert.equal(memory.dot(x, y), 18);
      assert.equal(memory.dot(x, y, 2), 20);
      assert.equal(memory.sumSquares(put(memory, [])), 0);
    });

    it('reduces whole blocks and their concatenation to the same bits', () => {
      const x = put(
        memory,
        Array.from({ length: 3 * reductionBlock + 77 }, (_, i) => Math.fround(1 / (i + 1.5))),
      );
      let carry = 0;
      for (let start = 0; start < x.length; start += reductionBlock) {
        carry = memory.sumSquares(x.subarray(start, start + reductionBlock), carry);
      }
      assert.equal(carry, memory.sumSquares(x));
    });

    it('finds NaN and infinity at every place', () => {
      for (const bad of [NaN, Infinity, -Infinity]) {
        for (let i = 0; i < 11; i++) {
          const x = memory.allocF32(11).fill(3e38);
          assert.ok(memory.allFinite(x));
          x[i] = bad;
          assert.ok(!memory.allFinite(x), `${bad} at ${i}`);
        }
      }
    });

    it('steps AdamW as PyTorch does', () => {
      const w = put(memory, [1, -2, 0.5, 0, 3]);
      const g = put(memory, [0.1, 0.2, -0.3, 0, 1e-20]);
      const m = memory.allocF32(5);
      const v = memory.allocF32(5);
      memory.adamw(w, g, m, v, adamwOptions);
      // The first step moves every weight by the learning rate against its gradient's sign, after decay.
      const expected = [1 * 0.9999 - 1e-3, -2 * 0.9999 - 1e-3, 0.5 * 0.9999 + 1e-3, 0, 3 * 0.9999];
      for (const [i, value] of expected.entries()) assert.ok(Math.abs(w[i]! - value) < 1e-6, `${i}: ${w[i]}`);
      assert.throws(() => memory.adamw(w, g, m, v, { ...adamwOptions, step: 0 }));
    });

    it('follows the paper over many AdamW steps', () => {
      const { learningRate, beta1, beta2, epsilon, weightDecay } = adamwOptions;
      const start = Array.from({ length: 13 }, (_, i) => Math.fround((i - 6) / 5));
      const w = put(memory, start);
      const m = memory.allocF32(13);
      const v = memory.allocF32(13);
      const paper = start.map((value) => ({ w: value, m: 0, v: 0 }));
      for (let step = 1; step <= 50; step++) {
        const gradients = start.map((_, i) => Math.fround(((i * 7 + step * 3) % 11) - 5));
        memory.adamw(w, put(memory, gradients), m, v, { ...adamwOptions, step, gradientScale: 0.5 });
        for (const [i, one] of paper.entries()) {
          const g = 0.5 * gradients[i]!;
          one.m = beta1 * one.m + (1 - beta1) * g;
          one.v = beta2 * one.v + (1 - beta2) * g * g;
          const mean = one.m / (1 - beta1 ** step);
          const square = one.v / (1 - beta2 ** step);
          one.w -= learningRate * (mean / (Math.sqrt(square) + epsilon) + weightDecay * one.w);
        }
      }
      for (const [i, one] of paper.entries())
        assert.ok(Math.abs(w[i]! - one.w) < 1e-5, `${w[i]}, not ${one.w}`);
    });

    it('adds rows in order and refuses rows outside the table', () => {
      const table = put(memory, [0, 0, 0, 1, 1, 1]);
      const ids = memory.allocI32(3);
      ids.set([1, 0, 1]);
      memory.scatterAddRows(table, ids, put(memory, [1, 2, 3, 4, 5, 6, 7, 8, 9]), 3);
      assert.deepEqual([...table], [4, 5, 6, 9, 11, 13]);
      for (const bad of [-1, 2]) {
        ids[0] = bad;
        assert.throws(() => memory.scatterAddRows(table, ids, memory.allocF32(9), 3), /row/);
      }
    });

    it('takes the Nesterov step', () => {
      const w = put(memory, [1]);
      const v = put(memory, [0.5]);
      memory.outerStep(w, v, put(memory, [0.25]), 0.5, 0.5);
      assert.deepEqual([v[0], w[0]], [0.5, 1 - 0.5 * (0.25 + 0.25)]);
    });

    it('combines rows and means of ranks', () => {
      const rows = [put(memory, [1, 5, -0]), put(memory, [2, 4, -0]), put(memory, [9, -3, 0])];
      const out = memory.allocF32(3);
      memory.combineRows(out, rows, [1, 2, -1]);
      assert.deepEqual([...out], [-4, 16, 0]);
      memory.orderMean(out, rows, [1, 1, 1], 1, 2);
      assert.deepEqual([...out], [2, 4, 0]);
      memory.orderMean(out, rows, [1, 1, 0.5], 0, 3);
      assert.deepEqual([...out], [2.5, 2.5, 0]);
      assert.throws(() => memory.orderMean(out, rows, [1, 1, 1], 2, 2));
      assert.throws(() =>
        memory.combineRows(out, Array(rowsMax + 1).fill(rows[0]), Array(rowsMax + 1).fill(1)),
      );
    });

    it('refuses operands of different lengths', () => {
      const three = memory.allocF32(3);
      const four = memory.allocF32(4);
      assert.throws(() => memory.subtract(three, three, four));
      assert.throws(() => memory.dot(three, four));
      assert.throws(() => memory.encode('int8', memory.allocBytes(6), three));
    });
  });
}

describe('kernels: wasm memory', () => {
  it('refuses views of another memory and sizes beyond wasm32', () => {
    const memory = createKernelMemory({ bytes: 1024 });
    assert.throws(() => memory.scale(new Float32Array(4), 2), /outside/);
    assert.throws(() => createKernelMemory({ bytes: 2 ** 33 }), RangeError);
  });

  it('is built from its sources', async () => {
    const { kernelModuleBase64 } = await import('./module.wasm.ts');
    assert.ok((await buildKernelModule()).includes(`'${kernelModuleBase64}'`), 'run npm run build:kernels');
  });
});

describe('kernels: sorting networks', () => {
  it('sort every sequence of zeros and ones', () => {
    for (let n = 1; n <= rowsMax; n++) {
      const network = sortingNetwork(n);
      for (let pattern = 0; pattern < 2 ** n; pattern += n > 12 ? 7 : 1) {
        let bits = pattern;
        for (const [low, high] of network) {
          if ((bits >> low) & 1 && !((bits >> high) & 1)) bits ^= (1 << low) | (1 << high);
        }
        // Sorted: all ones above all zeros.
        const ones = bits.toString(2).replaceAll('0', '').length;
        assert.equal(bits, ((1 << ones) - 1) << (n - ones), `n = ${n}, pattern ${pattern}`);
      }
    }
  });
});

/** Finite f32 of every size: ordinary numbers, denormals, zeros of both signs, repeated values. */
const finite = fc.oneof(
  { weight: 6, arbitrary: fc.float({ noNaN: true, noDefaultInfinity: true, min: -4, max: 4 }) },
  { weight: 1, arbitrary: fc.float({ noNaN: true, noDefaultInfinity: true }) },
  { weight: 2, arbitrary: fc.constantFrom(0, -0, 1, -1, Math.fround(1e-40), Math.fround(-1e-45)) },
);
const vector = fc.array(finite, { minLength: 1, maxLength: 200 });
const rowsOf = (rows: number) =>
  fc
    .integer({ min: 1, max: 150 })
    .chain((length) =>
      fc.array(fc.array(finite, { minLength: length, maxLength: length }), { minLength: 1, maxLength: rows }),
    );

describe('kernels: wasm and oracle give the same bits', () => {
  const wasm = createKernelMemory({ bytes });
  const oracle = createOracleMemory({ bytes });
  /** Runs `body` over both and compares everything it returns. */
  const same = (body: (memory: KernelMemory) => readonly (Float32Array | Uint8Array | number)[]) => {
    const [left, right] = [wasm, oracle].map((memory) => {
      const position = memory.mark();
      const results = body(memory).map((result) =>
        result instanceof Float32Array ? bitsOf(result) : result,
      );
      const copies = results.map((result) => (result instanceof Uint8Array ? [...result] : result));
      memory.reset(position);
      return copies;
    });
    assert.deepEqual(left, right);
  };

  it('reductions', () => {
    fc.assert(
      fc.property(rowsOf(9), (rows) => {
        same((memory) => {
          const views = rows.map((row) => put(memory, row));
          const sums = new Float64Array(rows.length ** 2).fill(0.1);
          memory.gram(views, sums);
          return [...sums, memory.sumSquares(views[0]!), memory.dot(views[0]!, views.at(-1)!)];
        });
      }),
    );
  });

  it('long reductions', () => {
    same((memory) => {
      const rows = [1, 2, 3].map((k) =>
        put(
          memory,
          Array.from({ length: 10_007 }, (_, i) => (((i * 7919 * k) % 10_007) - 5000) / 77),
        ),
      );
      const sums = new Float64Array(9);
      memory.gram(rows, sums);
      assert.equal(sums[1], memory.dot(rows[0]!, rows[1]!));
      return [...sums, memory.sumSquares(rows[2]!)];
    });
  });

  it('elementwise and the outer step', () => {
    fc.assert(
      fc.property(rowsOf(4), finite, (rows, s) => {
        same((memory) => {
          const [a, b, c] = [0, 1, 2].map((i) => put(memory, rows[i % rows.length]!));
          const out = memory.allocF32(a!.length);
          memory.subtract(out, a!, b!);
          memory.addScaled(a!, b!, s);
          memory.scale(b!, s);
          memory.outerStep(a!, c!, b!, 0.7, 0.9);
          return [out, a!, b!, c!];
        });
      }),
    );
  });

  it('AdamW over several steps', () => {
    const scale = fc.float({ min: Math.fround(1e-3), max: 1, noNaN: true });
    fc.assert(
      fc.property(
        vector,
        vector,
        fc.integer({ min: 1, max: 100_000 }),
        scale,
        (w0, g0, first, gradientScale) => {
          same((memory) => {
            const w = put(memory, w0);
            const g = put(
              memory,
              Array.from(w0, (_, i) => g0[i % g0.length]!),
            );
            const m = memory.allocF32(w.length);
            const v = memory.allocF32(w.length);
            for (let step = first; step < first + 3; step++) {
              memory.adamw(w, g, m, v, { ...adamwOptions, step, gradientScale });
            }
            return [w, m, v];
          });
        },
      ),
    );
  });

  it('rows: weighted sums and means of ranks', () => {
    fc.assert(
      fc.property(
        rowsOf(rowsMax),
        fc.array(finite, { minLength: 17, maxLength: 17 }),
        fc.nat(),
        (rows, c, cut) => {
          same((memory) => {
            const n = rows.length;
            const views = rows.map((row) => put(memory, row));
            const sum = memory.allocF32(views[0]!.length);
            const trimmed = memory.allocF32(views[0]!.length);
            memory.combineRows(sum, views, c.slice(0, n));
            const k = cut % Math.ceil(n / 2);
            const scales = c.slice(0, n).map((value) => Math.min(1, Math.abs(value)));
            memory.orderMean(trimmed, views, scales, k, n - k);
            return [sum, trimmed];
          });
        },
      ),
    );
  });

  it('codecs of blocks', () => {
    const long = fc.tuple(vector, fc.integer({ min: 1, max: 9000 }));
    fc.assert(
      fc.property(long, fc.constantFrom(...layouts), ([seed, length], layout) => {
        same((memory) => {
          const x = put(
            memory,
            Array.from({ length }, (_, i) => seed[(i * i + 3 * i) % seed.length]!),
          );
          const encoded = memory.allocBytes(encodedBytes(layout, length));
          const decoded = memory.allocF32(length);
          memory.encode(layout, encoded, x);
          memory.decode(layout, decoded, encoded);
          return [encoded, decoded];
        });
      }),
      { numRuns: 60 },
    );
  });
});
