/**
 * Collects ONNX nodes and initializers under generated names. Emitting the same pure computation twice gives the
 * same tensor (common subexpressions: the softmax that a loss and its gradient share). It knows no primitive of ours.
 */
import { bytesOf, equalBytes } from '../../std/bytes.ts';
import type { Shape, TensorData } from '../graph.ts';
import type { Attribute, OnnxInitializer, OnnxNode } from './model.ts';

export type Attributes = Readonly<Record<string, Attribute>>;

export class Emitter {
  readonly nodes: OnnxNode[] = [];
  readonly initializers: OnnxInitializer[] = [];
  readonly #emitted = new Map<string, readonly string[]>();
  readonly #constants = new Map<string, readonly OnnxInitializer[]>();
  #names = 0;

  #fresh(): string {
    return `%${this.#names++}`;
  }

  /** Emits one node (or finds its equal) and names its outputs. */
  emit(
    opType: string,
    inputs: readonly string[],
    attributes: Attributes,
    outputs: number,
    domain = '',
  ): readonly string[] {
    const key = `${domain}/${opType}(${inputs})${JSON.stringify(attributes)}#${outputs}`;
    const known = this.#emitted.get(key);
    if (known) return known;
    const names = Array.from({ length: outputs }, () => this.#fresh());
    this.nodes.push({ opType, domain, inputs, outputs: names, attributes });
    this.#emitted.set(key, names);
    return names;
  }

  /** A standard ONNX operation with one output. */
  op(opType: string, inputs: readonly string[], attributes: Attributes = {}): string {
    return this.emit(opType, inputs, attributes, 1)[0]!;
  }

  /** An operation of ONNX Runtime's own domain with one output. */
  microsoft(opType: string, inputs: readonly string[], attributes: Attributes = {}): string {
    return this.emit(opType, inputs, attributes, 1, 'com.microsoft')[0]!;
  }

  /** Constants of the same bytes are one tensor, so that what is computed from them is one, too. */
  constant(data: TensorData | BigInt64Array, shape: Shape): string {
    const kind = `${data.constructor.name}[${shape}]`;
    const alike = this.#constants.get(kind) ?? [];
    const known = alike.find((candidate) => equalBytes(bytesOf(candidate.data), bytesOf(data)));
    if (known) return known.name;
    const initializer = { name: this.#fresh(), shape, data };
    this.initializers.push(initializer);
    this.#constants.set(kind, [...alike, initializer]);
    return initializer.name;
  }

  scalar(value: number): string {
    return this.constant(Float32Array.of(value), []);
  }

  /** An int64 vector: shapes, axes, positions. */
  ints(values: readonly number[]): string {
    return this.constant(BigInt64Array.from(values, BigInt), [values.length]);
  }

  reshape(x: string, shape: Shape): string {
    return this.op('Reshape', [x, this.ints(shape)]);
  }

  slice(x: string, axis: number, start: number, end: number): string {
    return this.op('Slice', [x, this.ints([start]), this.ints([end]), this.ints([axis])]);
  }

  /** Zero padding of one axis of a tensor of `rank` axes. */
  pad(x: string, rank: number, axis: number, before: number, after: number): string {
    const pads = new Array<number>(2 * rank).fill(0);
    pads[axis] = before;
    pads[rank + axis] = after;
    return this.op('Pad', [x, this.ints(pads)]);
  }

  reduceSum(x: string, axes: readonly number[]): string {
    return this.op('ReduceSum', [x, this.ints(axes)], { keepdims: 1 });
  }

  /** a·b over the last two axes, times `alpha`; either side transposed. */
  fusedMatmul(
    a: string,
    b: string,
    options: { transA?: boolean; transB?: boolean; alpha?: number } = {},
  ): string {
    return this.microsoft('FusedMatMul', [a, b], {
      transA: options.transA ? 1 : 0,
      transB: options.transB ? 1 : 0,
      alpha: { float: options.alpha ?? 1 },
    });
  }
}
