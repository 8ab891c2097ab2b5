/**
 * Host kernels over 10M parameters, one core: milliseconds of the best of several runs.
 * Run: node bench/kernels.ts [parameters]
 */
import { encodedBytes } from '../src/tensor/kernels/layout.ts';
import { createKernelMemory } from '../src/tensor/kernels/wasm.ts';

const length = Number(process.argv[2] ?? 10_000_000);
const repeats = 7;

const memory = createKernelMemory({ bytes: 4 * length * 6 + (1 << 20) });
const [w, g, m, v, x] = Array.from({ length: 5 }, () => memory.allocF32(length)) as [
  Float32Array,
  Float32Array,
  Float32Array,
  Float32Array,
  Float32Array,
];

function fill(view: Float32Array, seed: number): void {
  let state = seed;
  for (let i = 0; i < view.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    view[i] = state / 2 ** 31;
  }
}

for (const [i, view] of [w, g, x].entries()) fill(view, i + 1);
const encoded = memory.allocBytes(encodedBytes('int8', length));
const sparse = encoded.subarray(0, encodedBytes('sparse', length));
const int4 = encoded.subarray(0, encodedBytes('int4', length));
const adamw = {
  learningRate: 1e-3,
  beta1: 0.9,
  beta2: 0.95,
  epsilon: 1e-8,
  weightDecay: 0.1,
  gradientScale: 0.5,
};

const cases: Record<string, (run: number) => unknown> = {
  adamw: (run) => memory.adamw(w, g, m, v, { ...adamw, step: run + 1 }),
  'outer step': () => memory.outerStep(w, v, g, 1e-6, 0.9),
  subtract: () => memory.subtract(x, w, g),
  'add scaled': () => memory.addScaled(x, w, 1e-3),
  'sum of squares': () => memory.sumSquares(x),
  'all finite': () => memory.allFinite(x),
  'int8 encode': () => memory.encode('int8', encoded, g),
  'int8 decode': () => memory.decode('int8', x, encoded),
  'int4 encode': () => memory.encode('int4', int4, g),
  'int4 decode': () => memory.decode('int4', x, int4),
  'sparse encode': () => memory.encode('sparse', sparse, g),
  'sparse decode': () => memory.decode('sparse', x, sparse),
};

console.log(`${length} parameters, best of ${repeats}`);
for (const [name, body] of Object.entries(cases)) {
  let best = Infinity;
  for (let run = 0; run < repeats; run++) {
    const start = performance.now();
    body(run);
    best = Math.min(best, performance.now() - start);
  }
  console.log(`${name.padEnd(16)} ${best.toFixed(1).padStart(8)} ms`);
}
