/**
 * The graph IR: a list of typed nodes with static shapes, in single-assignment order. `GraphBuilder` infers
 * shapes and refuses malformed calls at once. This file knows nothing of gradients, ONNX or engines; the one
 * list of primitives is `Primitive`, and every table over it (gradients, interpreter, lowering) is exhaustive.
 */
import { AssertionError, assert } from '../std/assert.ts';

export type DType = 'f32' | 'i32';
export type Shape = readonly number[];
export type TensorData = Float32Array | Int32Array;

/** One tensor of the graph. `id` is its place in the graph's value list. */
export interface Value {
  readonly id: number;
  readonly dtype: DType;
  readonly shape: Shape;
}

/**
 * Every primitive with its attributes. Shapes in comments: inputs → outputs.
 * Elementwise binaries broadcast like NumPy. Reductions keep their axes with length 1.
 */
export type Primitive =
  | { readonly op: 'input'; readonly name: string }
  | { readonly op: 'constant'; readonly data: TensorData }
  | { readonly op: 'add' | 'sub' | 'mul' | 'div' }
  | { readonly op: 'neg' | 'sqrt' | 'reciprocal' | 'sigmoid' }
  /** [m,k]·[k,n] → [m,n], each side optionally transposed. */
  | { readonly op: 'matmul'; readonly transA: boolean; readonly transB: boolean }
  /** [...,m,k]·[...,k,n] → [...,m,n] with equal leading axes, times `scale`. */
  | { readonly op: 'batchMatmul'; readonly transA: boolean; readonly transB: boolean; readonly scale: number }
  | { readonly op: 'reshape'; readonly shape: Shape }
  /** Repeats axes of length 1 (and missing leading axes) up to `shape`. */
  | { readonly op: 'broadcast'; readonly shape: Shape }
  | { readonly op: 'transpose'; readonly perm: readonly number[] }
  | { readonly op: 'slice'; readonly axis: number; readonly start: number; readonly end: number }
  /** Zero padding on one axis: the gradient of `slice`. */
  | { readonly op: 'pad'; readonly axis: number; readonly before: number; readonly after: number }
  | { readonly op: 'concat'; readonly axis: number }
  | { readonly op: 'reduceSum' | 'reduceMean'; readonly axes: readonly number[] }
  /** Over the last axis. */
  | { readonly op: 'softmax' }
  /**
   * Rotary embedding. x [B,H,S,hd], cos and sin [S,hd/2] → [B,H,S,hd]. The two halves of the last axis are the
   * pairs, as in Hugging Face Llama: (x₁·cos − x₂·sin, x₂·cos + x₁·sin). Its inverse and gradient is −sin.
   */
  | { readonly op: 'rope' }
  /** x·sigmoid(x). */
  | { readonly op: 'silu' }
  /** x, dy → dy·(σ + x·σ·(1 − σ)), the gradient of `silu`. */
  | { readonly op: 'siluGrad' }
  /** table [V,d], ids i32 [n] → [n,d]. Its table gradient is rows, scatter-added on the host. */
  | { readonly op: 'gatherRows' }
  /** logits [n,V], labels i32 [n] → loss [n] = −log softmax(logits)[label]. */
  | { readonly op: 'crossEntropy' }
  /** logits [n,V], labels i32 [n], dLoss [n] → dLogits [n,V]. */
  | { readonly op: 'crossEntropyGrad' }
  /** q [B,H,S,hd], k and v [B,KV,S,hd] → [B,H,S,hd]; query head h reads kv head ⌊h·KV/H⌋; scores times 1/√hd. */
  | { readonly op: 'causalAttention' }
  /** q, k, v, out, dOut → dq, dk, dv. */
  | { readonly op: 'causalAttentionGrad' };

export type OpName = Primitive['op'];

/** The member of `Primitive` that an operation's name stands for. */
export type PrimitiveOf<K extends OpName> = Primitive extends infer P
  ? P extends { readonly op: OpName }
    ? K extends P['op']
      ? P
      : never
    : never
  : never;

/** A table over every primitive: an operation without an entry does not compile. */
export type PrimitiveTable<Entry> = { readonly [K in OpName]: Entry };

export interface Node {
  readonly primitive: Primitive;
  readonly inputs: readonly Value[];
  readonly outputs: readonly Value[];
}

export interface Graph {
  readonly nodes: readonly Node[];
  readonly values: readonly Value[];
  /** Named inputs in the order they were declared. */
  readonly inputs: ReadonlyMap<string, Value>;
  readonly outputs: ReadonlyMap<string, Value>;
}

/** Thrown for a call that no graph can contain: a bug in the code that builds the graph. */
export class GraphError extends AssertionError {
  override name = 'GraphError';
}

export function sizeOf(shape: Shape): number {
  return shape.reduce((product, length) => product * length, 1);
}

export function sameShape(a: Shape, b: Shape): boolean {
  return a.length === b.length && a.every((length, axis) => length === b[axis]);
}

/** NumPy broadcasting. Throws GraphError when the shapes do not fit. */
export function broadcastShape(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, axis) => {
    const left = a[axis - rank + a.length] ?? 1;
    const right = b[axis - rank + b.length] ?? 1;
    if (left !== right && left !== 1 && right !== 1)
      throw new GraphError(`cannot broadcast [${a}] and [${b}]`);
    return left === 1 ? right : left;
  });
}

function check(condition: boolean, op: string, inputs: readonly Value[]): void {
  if (!condition) {
    const shapes = inputs.map((value) => `${value.dtype}[${value.shape}]`).join(', ');
    throw new GraphError(`${op}: unfit operands ${shapes}`);
  }
}

type BinaryOp = 'add' | 'sub' | 'mul' | 'div';
type UnaryOp = 'neg' | 'sqrt' | 'reciprocal' | 'sigmoid' | 'silu';

/** Builds one graph. Methods append a node and return its output; `finish` names the outputs and closes it. */
export class GraphBuilder {
  readonly nodes: Node[] = [];
  readonly values: Value[] = [];
  readonly #inputs = new Map<string, Value>();
  #finished = false;

  /** Appends a node. The typed methods below are the only callers outside `tensor/`. */
  append(primitive: Primitive, inputs: readonly Value[], outputs: readonly [DType, Shape][]): Value[] {
    assert(!this.#finished, 'graph already finished');
    for (const input of inputs) assert(this.values[input.id] === input, `${primitive.op}: foreign value`);
    const created = outputs.map(([dtype, shape]) => {
      for (const length of shape) {
        if (!Number.isInteger(length) || length < 1)
          throw new GraphError(`${primitive.op}: bad shape [${shape}]`);
      }
      const value: Value = { id: this.values.length, dtype, shape: shape.slice() };
      this.values.push(value);
      return value;
    });
    this.nodes.push({ primitive, inputs, outputs: created });
    return created;
  }

  #one(primitive: Primitive, inputs: readonly Value[], shape: Shape, dtype: DType = 'f32'): Value {
    return this.append(primitive, inputs, [[dtype, shape]])[0]!;
  }

  input(name: string, dtype: DType, shape: Shape): Value {
    if (this.#inputs.has(name)) throw new GraphError(`input ${name} declared twice`);
    const value = this.#one({ op: 'input', name }, [], shape, dtype);
    this.#inputs.set(name, value);
    return value;
  }

  constant(data: TensorData, shape: Shape): Value {
    if (data.length !== sizeOf(shape))
      throw new GraphError(`constant of ${data.length} elements as [${shape}]`);
    return this.#one({ op: 'constant', data }, [], shape, data instanceof Int32Array ? 'i32' : 'f32');
  }

  scalar(value: number): Value {
    return this.constant(Float32Array.of(value), []);
  }

  #binary(op: BinaryOp, a: Value, b: Value): Value {
    check(a.dtype === 'f32' && b.dtype === 'f32', op, [a, b]);
    return this.#one({ op }, [a, b], broadcastShape(a.shape, b.shape));
  }
  add(a: Value, b: Value): Value {
    return this.#binary('add', a, b);
  }
  sub(a: Value, b: Value): Value {
    return this.#binary('sub', a, b);
  }
  mul(a: Value, b: Value): Value {
    return this.#binary('mul', a, b);
  }
  div(a: Value, b: Value): Value {
    return this.#binary('div', a, b);
  }

  #unary(op: UnaryOp, x: Value): Value {
    check(x.dtype === 'f32', op, [x]);
    return this.#one({ op }, [x], x.shape);
  }
  neg(x: Value): Value {
    return this.#unary('neg', x);
  }
  sqrt(x: Value): Value {
    return this.#unary('sqrt', x);
  }
  reciprocal(x: Value): Value {
    return this.#unary('reciprocal', x);
  }
  sigmoid(x: Value): Value {
    return this.#unary('sigmoid', x);
  }

  silu(x: Value): Value {
    return this.#unary('silu', x);
  }
  siluGrad(x: Value, dy: Value): Value {
    check(sameShape(x.shape, dy.shape) && x.dtype === 'f32' && dy.dtype === 'f32', 'siluGrad', [x, dy]);
    return this.#one({ op: 'siluGrad' }, [x, dy], x.shape);
  }

  matmul(a: Value, b: Value, options: { transA?: boolean; transB?: boolean } = {}): Value {
    const { transA = false, transB = false } = options;
    check(a.shape.length === 2 && b.shape.length === 2, 'matmul', [a, b]);
    const [m, k] = transA ? [a.shape[1]!, a.shape[0]!] : [a.shape[0]!, a.shape[1]!];
    const [k2, n] = transB ? [b.shape[1]!, b.shape[0]!] : [b.shape[0]!, b.shape[1]!];
    check(k === k2, 'matmul', [a, b]);
    return this.#one({ op: 'matmul', transA, transB }, [a, b], [m, n]);
  }

  batchMatmul(
    a: Value,
    b: Value,
    options: { transA?: boolean; transB?: boolean; scale?: number } = {},
  ): Value {
    const { transA = false, transB = false, scale = 1 } = options;
    const rank = a.shape.length;
    const lead = a.shape.slice(0, -2);
    check(rank >= 3 && b.shape.length === rank && sameShape(lead, b.shape.slice(0, -2)), 'batchMatmul', [
      a,
      b,
    ]);
    const [m, k] = transA
      ? [a.shape[rank - 1]!, a.shape[rank - 2]!]
      : [a.shape[rank - 2]!, a.shape[rank - 1]!];
    const [k2, n] = transB
      ? [b.shape[rank - 1]!, b.shape[rank - 2]!]
      : [b.shape[rank - 2]!, b.shape[rank - 1]!];
    check(k === k2, 'batchMatmul', [a, b]);
    return this.#one({ op: 'batchMatmul', transA, transB, scale }, [a, b], [...lead, m, n]);
  }

  reshape(x: Value, shape: Shape): Value {
    check(sizeOf(shape) === sizeOf(x.shape), `reshape to [${shape}]`, [x]);
    return this.#one({ op: 'reshape', shape }, [x], shape, x.dtype);
  }

  broadcast(x: Value, shape: Shape): Value {
    check(sameShape(broadcastShape(x.shape, shape), shape), `broadcast to [${shape}]`, [x]);
    return this.#one({ op: 'broadcast', shape }, [x], shape, x.dtype);
  }

  rope(x: Value, cos: Value, sin: Value): Value {
    const [, , length, width] = x.shape;
    const half = [length!, width! / 2];
    const fits = x.shape.length === 4 && sameShape(cos.shape, half) && sameShape(sin.shape, half);
    check(fits, 'rope', [x, cos, sin]);
    return this.#one({ op: 'rope' }, [x, cos, sin], x.shape);
  }

  transpose(x: Value, perm: readonly number[]): Value {
    const sorted = [...perm].sort((a, b) => a - b);
    check(perm.length === x.shape.length && sorted.every((axis, i) => axis === i), `transpose(${perm})`, [x]);
    const shape = perm.map((axis) => x.shape[axis]!);
    return this.#one({ op: 'transpose', perm }, [x], shape, x.dtype);
  }

  /** Elements [start, end) of one axis. */
  slice(x: Value, axis: number, start: number, end: number): Value {
    const length = x.shape[axis] ?? 0;
    check(start >= 0 && start < end && end <= length, `slice(${axis}, ${start}, ${end})`, [x]);
    const shape = x.shape.map((n, i) => (i === axis ? end - start : n));
    return this.#one({ op: 'slice', axis, start, end }, [x], shape, x.dtype);
  }

  pad(x: Value, axis: number, before: number, after: number): Value {
    check(axis < x.shape.length && before >= 0 && after >= 0, 'pad', [x]);
    const shape = x.shape.map((n, i) => (i === axis ? n + before + after : n));
    return this.#one({ op: 'pad', axis, before, after }, [x], shape, x.dtype);
  }

  concat(parts: readonly Value[], axis: number): Value {
    const first = parts[0];
    check(first !== undefined && axis < first.shape.length, 'concat', parts);
    const rest = (value: Value) => value.shape.filter((_, i) => i !== axis);
    check(
      parts.every((part) => part.dtype === first!.dtype && sameShape(rest(part), rest(first!))),
      'concat',
      parts,
    );
    const total = parts.reduce((sum, part) => sum + part.shape[axis]!, 0);
    const shape = first!.shape.map((n, i) => (i === axis ? total : n));
    return this.#one({ op: 'concat', axis }, parts, shape, first!.dtype);
  }

  #reduce(op: 'reduceSum' | 'reduceMean', x: Value, axes: readonly number[]): Value {
    check(
      axes.length > 0 && axes.every((axis) => axis >= 0 && axis < x.shape.length) && x.dtype === 'f32',
      op,
      [x],
    );
    const shape = x.shape.map((n, i) => (axes.includes(i) ? 1 : n));
    return this.#one({ op, axes }, [x], shape);
  }
  reduceSum(x: Value, axes: readonly number[]): Value {
    return this.#reduce('reduceSum', x, axes);
  }
  reduceMean(x: Value, axes: readonly number[]): Value {
    return this.#reduce('reduceMean', x, axes);
  }

  softmax(x: Value): Value {
    check(x.shape.length >= 1 && x.dtype === 'f32', 'softmax', [x]);
    return this.#one({ op: 'softmax' }, [x], x.shape);
  }

  gatherRows(table: Value, ids: Value): Value {
    check(table.shape.length === 2 && ids.shape.length === 1 && ids.dtype === 'i32', 'gatherRows', [
      table,
      ids,
    ]);
    return this.#one({ op: 'gatherRows' }, [table, ids], [ids.shape[0]!, table.shape[1]!]);
  }

  crossEntropy(logits: Value, labels: Value): Value {
    const fits =
      logits.shape.length === 2 && labels.dtype === 'i32' && sameShape(labels.shape, [logits.shape[0]!]);
    check(fits, 'crossEntropy', [logits, labels]);
    return this.#one({ op: 'crossEntropy' }, [logits, labels], labels.shape);
  }

  crossEntropyGrad(logits: Value, labels: Value, dLoss: Value): Value {
    check(sameShape(dLoss.shape, labels.shape), 'crossEntropyGrad', [logits, labels, dLoss]);
    return this.#one({ op: 'crossEntropyGrad' }, [logits, labels, dLoss], logits.shape);
  }

  causalAttention(q: Value, k: Value, v: Value): Value {
    const [batch, heads, length, width] = q.shape;
    const kvHeads = k.shape[1] ?? 0;
    const fits =
      q.shape.length === 4 &&
      sameShape(k.shape, v.shape) &&
      sameShape(k.shape, [batch!, kvHeads, length!, width!]) &&
      heads! % kvHeads === 0;
    check(fits, 'causalAttention', [q, k, v]);
    return this.#one({ op: 'causalAttention' }, [q, k, v], q.shape);
  }

  causalAttentionGrad(q: Value, k: Value, v: Value, out: Value, dOut: Value): [Value, Value, Value] {
    check(sameShape(out.shape, q.shape) && sameShape(dOut.shape, q.shape), 'causalAttentionGrad', [
      q,
      k,
      v,
      out,
      dOut,
    ]);
    const inputs = [q, k, v, out, dOut];
    const outputs = inputs.slice(0, 3).map((value): [DType, Shape] => ['f32', value.shape]);
    return this.append({ op: 'causalAttentionGrad' }, inputs, outputs) as [Value, Value, Value];
  }

  finish(outputs: Readonly<Record<string, Value>>): Graph {
    for (const value of Object.values(outputs)) assert(this.values[value.id] === value, 'foreign output');
    this.#finished = true;
    return {
      nodes: this.nodes,
      values: this.values,
      inputs: this.#inputs,
      outputs: new Map(Object.entries(outputs)),
    };
  }
}
