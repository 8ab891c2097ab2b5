/**
 * Reverse-mode differentiation: walks the builder's nodes backwards and appends the gradient computation to the same
 * builder. What one operation's gradient is stands in `gradient-rules.ts`; nothing is executed here.
 */

import { applyRule, materialise } from './gradient-rules.ts';
import { type GraphBuilder, GraphError, type Node, sameShape, type Value } from './graph.ts';

export interface DifferentiateOptions {
  /** Pairs of a value and the gradient that arrives at it (of the value's shape, or broadcasting to it). */
  readonly seeds: readonly (readonly [value: Value, gradient: Value])[];
  /** The values whose gradients are wanted: inputs or intermediates. */
  readonly wrt: readonly Value[];
}

/**
 * Appends nodes computing Σ over seeds of gradient · ∂value/∂wrt, and returns one value per `wrt`, of its shape.
 * Throws GraphError when no path of f32 operations leads from a seed to a `wrt`, and for the table of `gatherRows`
 * (ask for the gathered rows instead).
 */
export function differentiate(builder: GraphBuilder, options: DifferentiateOptions): Value[] {
  const { seeds, wrt } = options;
  const nodes = builder.nodes.slice();
  const producer = new Map<Value, Node>();
  for (const node of builder.nodes) for (const output of node.outputs) producer.set(output, node);
  const wanted = dependents(nodes, wrt);
  const contributions = new Map<Value, Value[]>();
  const contribute = (value: Value, gradient: Value) => {
    const list = contributions.get(value);
    if (list) list.push(gradient);
    else contributions.set(value, [gradient]);
  };
  for (const [value, gradient] of seeds) contribute(value, gradient);

  const totals = new Map<Value, Value>();
  const totalOf = (value: Value): Value | undefined => {
    const known = totals.get(value);
    const parts = contributions.get(value);
    if (known || !parts) return known;
    const total = sum(builder, value, parts);
    totals.set(value, total);
    return total;
  };
  for (const node of nodes.reverse()) {
    const flags = node.inputs.map((input) => wanted.has(input));
    if (!flags.includes(true)) continue;
    const gradients = node.outputs.map(totalOf);
    if (gradients.every((gradient) => gradient === undefined)) continue;
    const results = applyRule(builder, node, gradients, flags);
    results.forEach((gradient, i) => {
      if (gradient && flags[i]) contribute(node.inputs[i]!, gradient);
    });
  }
  return wrt.map((value) => {
    const total = totalOf(value);
    if (!total) throw new GraphError(`no gradient path to ${describe(value, producer)}`);
    return materialise(builder, total, value.shape);
  });
}

function describe(value: Value, producer: ReadonlyMap<Value, Node>): string {
  const primitive = producer.get(value)?.primitive;
  const name = primitive?.op === 'input' ? `input ${primitive.name}` : `${primitive?.op} output`;
  return `${name} [${value.shape}]`;
}

/** All values that depend on one of `roots`, the roots included. */
function dependents(nodes: readonly Node[], roots: readonly Value[]): Set<Value> {
  const found = new Set(roots);
  for (const node of nodes) {
    if (node.inputs.some((input) => found.has(input))) for (const output of node.outputs) found.add(output);
  }
  return found;
}

/** The sum of all contributions to `value`. Slices that tile an axis join by concatenation instead of padded sums. */
function sum(builder: GraphBuilder, value: Value, parts: readonly Value[]): Value {
  const tiles = parts.length > 1 ? asTiles(builder, value, parts) : undefined;
  if (tiles) return builder.concat(tiles.parts, tiles.axis);
  return parts.reduce((total, part) => builder.add(total, part));
}

/** The unpadded parts in order along their axis, if every part is a padding and together they cover it exactly once. */
function asTiles(
  builder: GraphBuilder,
  value: Value,
  parts: readonly Value[],
): { readonly parts: Value[]; readonly axis: number } | undefined {
  const tiles: { readonly start: number; readonly part: Value }[] = [];
  let axis: number | undefined;
  for (const part of parts) {
    const node = builder.nodes.find((candidate) => candidate.outputs[0] === part);
    if (node?.primitive.op !== 'pad' || !sameShape(part.shape, value.shape)) return undefined;
    axis ??= node.primitive.axis;
    if (node.primitive.axis !== axis) return undefined;
    tiles.push({ start: node.primitive.before, part: node.inputs[0]! });
  }
  tiles.sort((a, b) => a.start - b.start);
  let end = 0;
  for (const tile of tiles) {
    if (tile.start !== end) return undefined;
    end += tile.part.shape[axis!]!;
  }
  return end === value.shape[axis!] ? { parts: tiles.map((tile) => tile.part), axis: axis! } : undefined;
}
