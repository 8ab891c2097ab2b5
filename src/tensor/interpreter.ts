/**
 * The oracle: runs a graph node by node in plain f64 loops, written to be obvious and not fast. Inputs and outputs
 * are the usual f32 and i32 views; everything between is f64, so its results are the exact ones to f32 precision.
 */
import { must } from '../std/assert.ts';
import type { Engine, Tensors } from './engine.ts';
import { type Graph, type OpName, type PrimitiveOf, type Shape, sizeOf, type Value } from './graph.ts';
import { checkTensors } from './program.ts';
import { verify } from './verify.ts';

/** One array in f64 (or the integers of an i32 tensor). */
export interface Dense {
  readonly shape: Shape;
  readonly data: Float64Array;
}

function dense(shape: Shape): Dense {
  return { shape, data: new Float64Array(sizeOf(shape)) };
}

/** Row-major strides; an axis of length 1 has stride 0, so that indexing by it broadcasts. */
function stridesOf(shape: Shape): number[] {
  const strides = new Array<number>(shape.length).fill(0);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = shape[axis] === 1 ? 0 : stride;
    stride *= shape[axis]!;
  }
  return strides;
}

/** Calls `visit` for every index of `shape`, in row-major order. */
function forEachIndex(shape: Shape, visit: (index: readonly number[], flat: number) => void): void {
  const index = new Array<number>(shape.length).fill(0);
  const size = sizeOf(shape);
  for (let flat = 0; flat < size; flat++) {
    visit(index, flat);
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++index[axis]! < shape[axis]!) break;
      index[axis] = 0;
    }
  }
}

/** Where `index` falls in an array of `strides`, aligned at the last axis. */
function offsetOf(index: readonly number[], strides: readonly number[]): number {
  const missing = index.length - strides.length;
  return strides.reduce((offset, stride, axis) => offset + stride * index[axis + missing]!, 0);
}

function zip(shape: Shape, inputs: readonly Dense[], combine: (...elements: number[]) => number): Dense {
  const out = dense(shape);
  const strides = inputs.map((input) => stridesOf(input.shape));
  forEachIndex(shape, (index, flat) => {
    out.data[flat] = combine(...inputs.map((input, i) => input.data[offsetOf(index, strides[i]!)]!));
  });
  return out;
}

/** out[index] = x[source(index)]; a source of undefined is zero. */
function remap(
  shape: Shape,
  x: Dense,
  source: (index: readonly number[]) => readonly number[] | undefined,
): Dense {
  const out = dense(shape);
  const strides = stridesOf(x.shape);
  forEachIndex(shape, (index, flat) => {
    const from = source(index);
    out.data[flat] = from ? x.data[offsetOf(from, strides)]! : 0;
  });
  return out;
}

function shifted(index: readonly number[], axis: number, by: number): number[] {
  return index.map((position, i) => (i === axis ? position + by : position));
}

function reduce(x: Dense, shape: Shape, factor: number): Dense {
  const out = dense(shape);
  const strides = stridesOf(shape);
  forEachIndex(x.shape, (index, flat) => {
    out.data[offsetOf(index, strides)]! += x.data[flat]! * factor;
  });
  return out;
}

interface MatmulOptions {
  readonly transA: boolean;
  readonly transB: boolean;
  readonly scale: number;
}

/** Products over the last two axes; the leading ones are equal. */
function matmul(a: Dense, b: Dense, shape: Shape, options: MatmulOptions): Dense {
  const out = dense(shape);
  const [m, n] = shape.slice(-2) as [number, number];
  const k = a.shape.at(options.transA ? -2 : -1)!;
  for (let batch = 0; batch < out.data.length / (m * n); batch++) {
    for (let row = 0; row < m; row++) {
      for (let column = 0; column < n; column++) {
        let total = 0;
        for (let i = 0; i < k; i++) {
          const left = a.data[batch * m * k + (options.transA ? i * m + row : row * k + i)]!;
          const right = b.data[batch * k * n + (options.transB ? column * k + i : i * n + column)]!;
          total += left * right;
        }
        out.data[batch * m * n + row * n + column] = total * options.scale;
      }
    }
  }
  return out;
}

/** exp(x − max) / Σ over `row`, which is replaced. */
function softmaxRow(row: Float64Array): void {
  const max = row.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
  let total = 0;
  for (let i = 0; i < row.length; i++) total += row[i] = Math.exp(row[i]! - max);
  for (let i = 0; i < row.length; i++) row[i]! /= total;
}

function softmax(x: Dense): Dense {
  const out: Dense = { shape: x.shape, data: x.data.slice() };
  const width = x.shape.at(-1)!;
  for (let start = 0; start < out.data.length; start += width)
    softmaxRow(out.data.subarray(start, start + width));
  return out;
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

function rope(x: Dense, cos: Dense, sin: Dense): Dense {
  const out = dense(x.shape);
  const [length, width] = x.shape.slice(2) as [number, number];
  const half = width / 2;
  for (let start = 0; start < x.data.length; start += width) {
    const position = (start / width) % length;
    for (let i = 0; i < half; i++) {
      const [c, s] = [cos.data[position * half + i]!, sin.data[position * half + i]!];
      const [x1, x2] = [x.data[start + i]!, x.data[start + half + i]!];
      out.data[start + i] = x1 * c - x2 * s;
      out.data[start + half + i] = x2 * c + x1 * s;
    }
  }
  return out;
}

function checkedId(id: number, bound: number): number {
  if (id < 0 || id >= bound) throw new RangeError(`id ${id} of a table of ${bound} rows`);
  return id;
}

function crossEntropy(logits: Dense, labels: Dense): Dense {
  const p = softmax(logits);
  const width = logits.shape[1]!;
  const out = dense(labels.shape);
  labels.data.forEach((label, row) => {
    out.data[row] = -Math.log(p.data[row * width + checkedId(label, width)]!);
  });
  return out;
}

function crossEntropyGrad(logits: Dense, labels: Dense, dLoss: Dense): Dense {
  const out = softmax(logits);
  const width = logits.shape[1]!;
  labels.data.forEach((label, row) => {
    out.data[row * width + checkedId(label, width)]! -= 1;
    for (let i = 0; i < width; i++) out.data[row * width + i]! *= dLoss.data[row]!;
  });
  return out;
}

/** Calls `visit` with the offsets of every query row and the probabilities of the keys it may see. */
function forEachQuery(
  q: Dense,
  k: Dense,
  visit: (qOffset: number, kvOffset: number, p: Float64Array) => void,
): void {
  const [batch, heads, length, width] = q.shape as [number, number, number, number];
  const kvHeads = k.shape[1]!;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const kvOffset = (b * kvHeads + Math.floor((h * kvHeads) / heads)) * length * width;
      for (let s = 0; s < length; s++) {
        const qOffset = ((b * heads + h) * length + s) * width;
        const p = Float64Array.from({ length: s + 1 }, (_, key) => {
          let score = 0;
          for (let i = 0; i < width; i++) score += q.data[qOffset + i]! * k.data[kvOffset + key * width + i]!;
          return score / Math.sqrt(width);
        });
        softmaxRow(p);
        visit(qOffset, kvOffset, p);
      }
    }
  }
}

function causalAttention(q: Dense, k: Dense, v: Dense): Dense {
  const out = dense(q.shape);
  const width = q.shape[3]!;
  forEachQuery(q, k, (qOffset, kvOffset, p) => {
    p.forEach((weight, key) => {
      for (let i = 0; i < width; i++) out.data[qOffset + i]! += weight * v.data[kvOffset + key * width + i]!;
    });
  });
  return out;
}

/** The gradient by the softmax's own definition, without the row term Σ dO·O that the fast path uses. */
function causalAttentionGrad(q: Dense, k: Dense, v: Dense, dOut: Dense): Dense[] {
  const [dq, dk, dv] = [dense(q.shape), dense(k.shape), dense(v.shape)];
  const width = q.shape[3]!;
  forEachQuery(q, k, (qOffset, kvOffset, p) => {
    const dp = p.map((weight, key) => {
      let total = 0;
      for (let i = 0; i < width; i++) {
        const offset = kvOffset + key * width + i;
        total += dOut.data[qOffset + i]! * v.data[offset]!;
        dv.data[offset]! += weight * dOut.data[qOffset + i]!;
      }
      return total;
    });
    const mean = p.reduce((total, weight, key) => total + weight * dp[key]!, 0);
    p.forEach((weight, key) => {
      const ds = (weight * (dp[key]! - mean)) / Math.sqrt(width);
      for (let i = 0; i < width; i++) {
        dq.data[qOffset + i]! += ds * k.data[kvOffset + key * width + i]!;
        dk.data[kvOffset + key * width + i]! += ds * q.data[qOffset + i]!;
      }
    });
  });
  return [dq, dk, dv];
}

type Evaluate<K extends OpName> = (
  inputs: readonly Dense[],
  primitive: PrimitiveOf<K>,
  shape: Shape,
) => Dense | readonly Dense[];

function fedFromOutside(): never {
  throw new Error('inputs are fed');
}

const evaluators: { readonly [K in OpName]: Evaluate<K> } = {
  input: fedFromOutside,
  constant: (_, { data }, shape) => ({ shape, data: Float64Array.from(data) }),
  add: (inputs, _, shape) => zip(shape, inputs, (a, b) => a! + b!),
  sub: (inputs, _, shape) => zip(shape, inputs, (a, b) => a! - b!),
  mul: (inputs, _, shape) => zip(shape, inputs, (a, b) => a! * b!),
  div: (inputs, _, shape) => zip(shape, inputs, (a, b) => a! / b!),
  neg: (inputs, _, shape) => zip(shape, inputs, (x) => -x!),
  sqrt: (inputs, _, shape) => zip(shape, inputs, (x) => Math.sqrt(x!)),
  reciprocal: (inputs, _, shape) => zip(shape, inputs, (x) => 1 / x!),
  sigmoid: (inputs, _, shape) => zip(shape, inputs, (x) => sigmoid(x!)),
  silu: (inputs, _, shape) => zip(shape, inputs, (x) => x! * sigmoid(x!)),
  siluGrad: (inputs, _, shape) =>
    zip(shape, inputs, (x, dy) => {
      const s = sigmoid(x!);
      return dy! * (s + x! * s * (1 - s));
    }),
  matmul: ([a, b], { transA, transB }, shape) => matmul(a!, b!, shape, { transA, transB, scale: 1 }),
  batchMatmul: ([a, b], options, shape) => matmul(a!, b!, shape, options),
  reshape: ([x], _, shape) => ({ shape, data: x!.data }),
  broadcast: ([x], _, shape) => zip(shape, [x!], (element) => element!),
  transpose: ([x], { perm }, shape) =>
    remap(shape, x!, (index) => perm.map((_, axis) => index[perm.indexOf(axis)]!)),
  slice: ([x], { axis, start }, shape) => remap(shape, x!, (index) => shifted(index, axis, start)),
  pad: ([x], { axis, before }, shape) =>
    remap(shape, x!, (index) => {
      const from = index[axis]! - before;
      return from >= 0 && from < x!.shape[axis]! ? shifted(index, axis, -before) : undefined;
    }),
  concat: (parts, { axis }, shape) => {
    const starts = parts.map((_, i) => parts.slice(0, i).reduce((sum, part) => sum + part.shape[axis]!, 0));
    const out = dense(shape);
    forEachIndex(shape, (index, flat) => {
      const part = starts.findLastIndex((start) => index[axis]! >= start);
      const source = parts[part]!;
      out.data[flat] = source.data[offsetOf(shifted(index, axis, -starts[part]!), stridesOf(source.shape))]!;
    });
    return out;
  },
  reduceSum: ([x], _, shape) => reduce(x!, shape, 1),
  reduceMean: ([x], _, shape) => reduce(x!, shape, sizeOf(shape) / sizeOf(x!.shape)),
  softmax: ([x]) => softmax(x!),
  rope: ([x, cos, sin]) => rope(x!, cos!, sin!),
  gatherRows: ([table, ids], _, shape) =>
    remap(shape, table!, ([row, column]) => [checkedId(ids!.data[row!]!, table!.shape[0]!), column!]),
  crossEntropy: ([logits, labels]) => crossEntropy(logits!, labels!),
  crossEntropyGrad: ([logits, labels, dLoss]) => crossEntropyGrad(logits!, labels!, dLoss!),
  causalAttention: ([q, k, v]) => causalAttention(q!, k!, v!),
  causalAttentionGrad: ([q, k, v, , dOut]) => causalAttentionGrad(q!, k!, v!, dOut!),
};

/** Every value of a verified graph, in f64: what the gradient tests read without rounding to f32. */
export function evaluate(
  graph: Graph,
  feeds: Readonly<Record<string, ArrayLike<number>>>,
): Map<Value, Dense> {
  const values = new Map<Value, Dense>();
  const resultOf = (value: Value) => must(values.get(value), `value ${value.id} not evaluated`);
  for (const node of graph.nodes) {
    const { primitive } = node;
    if (primitive.op === 'input') {
      const [output] = node.outputs as [Value];
      values.set(output, { shape: output.shape, data: Float64Array.from(feeds[primitive.name]!) });
      continue;
    }
    const evaluator = evaluators[primitive.op] as Evaluate<OpName>;
    const result = evaluator(node.inputs.map(resultOf), primitive, node.outputs[0]!.shape);
    const results = Array.isArray(result) ? result : [result];
    node.outputs.forEach((output, i) => void values.set(output, results[i]!));
  }
  return values;
}

export function createInterpreter(): Engine {
  return {
    id: 'interpreter',
    async compile(graph) {
      const verified = verify(graph);
      return {
        async run(feeds: Tensors, fetches: Tensors) {
          checkTensors(verified, feeds, fetches);
          const values = evaluate(verified, feeds);
          for (const [name, value] of verified.outputs) fetches[name]!.set(values.get(value)!.data);
        },
        async release() {},
      };
    },
    async close() {},
  };
}
