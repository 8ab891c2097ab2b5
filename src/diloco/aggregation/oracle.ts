/**
 * Every rule as its paper writes it: plain f64 over whole vectors, no streaming, no Gram matrix, no kernels. The slow
 * reference that the real rules are compared with.
 */
import { unreachable } from '../../std/assert.ts';
import type { AggregationRule } from './rules.ts';

type Vector = readonly number[];

const dot = (a: Vector, b: Vector) => a.reduce((sum, value, i) => sum + value * b[i]!, 0);
const norm = (a: Vector) => Math.sqrt(dot(a, a));
const minus = (a: Vector, b: Vector) => a.map((value, i) => value - b[i]!);
const times = (a: Vector, s: number) => a.map((value) => value * s);
const clipTo = (a: Vector, most: number) => (norm(a) > most ? times(a, most / norm(a)) : a);
const ascending = (values: Vector) => [...values].sort((a, b) => a - b);
const lowerMedian = (values: Vector) => ascending(values)[Math.floor((values.length - 1) / 2)]!;

function weightedMean(rows: readonly Vector[], weights: Vector): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return rows[0]!.map((_, k) => rows.reduce((sum, row, i) => sum + weights[i]! * row[k]!, 0) / total);
}

/** Mean of ranks [from, to) of each coordinate. */
function ranks(rows: readonly Vector[], from: number, to: number): number[] {
  return rows[0]!.map((_, k) => {
    const kept = ascending(rows.map((row) => row[k]!)).slice(from, to);
    return kept.reduce((sum, value) => sum + value, 0) / kept.length;
  });
}

function median(rows: readonly Vector[]): number[] {
  return ranks(rows, Math.floor((rows.length - 1) / 2), Math.floor(rows.length / 2) + 1);
}

function krum(rows: readonly Vector[], hostile: number, keep: number): number[] {
  const scores = rows.map((row, i) => {
    const others = rows.filter((_, j) => j !== i).map((other) => norm(minus(row, other)) ** 2);
    return ascending(others)
      .slice(0, rows.length - hostile - 2)
      .reduce((sum, value) => sum + value, 0);
  });
  const best = rows.map((_, i) => i).sort((a, b) => scores[a]! - scores[b]! || a - b);
  const kept = best.slice(0, keep).map((i) => rows[i]!);
  return weightedMean(kept, new Array(keep).fill(1));
}

function centeredClipping(
  rows: readonly Vector[],
  weights: Vector,
  iterations: number,
  tau?: number,
): number[] {
  let center = median(rows);
  const radius = tau ?? lowerMedian(rows.map((row) => norm(minus(row, center))));
  for (let iteration = 0; iteration < iterations; iteration++) {
    const pulls = rows.map((row) => clipTo(minus(row, center), radius));
    const step = weightedMean(pulls, weights);
    center = center.map((value, k) => value + step[k]!);
  }
  return center;
}

function geometricMedian(rows: readonly Vector[], weights: Vector): number[] {
  let point = median(rows);
  for (let iteration = 0; iteration < 20_000; iteration++) {
    const pulls = rows.map((row, i) => weights[i]! / Math.max(1e-12, norm(minus(row, point))));
    const next = weightedMean(rows, pulls);
    const step = norm(minus(next, point));
    point = next;
    if (step <= 1e-10 * norm(point)) break;
  }
  return point;
}

function clippedLeaveOneOut(rows: readonly Vector[], weights: Vector): Vector {
  const blockOf = (row: Vector, block: number) => row.slice(4096 * block, 4096 * (block + 1));
  const blocks = Math.ceil(rows[0]!.length / 4096);
  const usual = lowerMedian(rows.map(norm)) / Math.sqrt(blocks);
  const clippedBlocks = rows.map((): number[] => []);
  for (let block = 0; block < blocks; block++) {
    const most = 2 * Math.max(usual, lowerMedian(rows.map((row) => norm(blockOf(row, block)))));
    for (const [i, row] of rows.entries()) clippedBlocks[i]!.push(...clipTo(blockOf(row, block), most));
  }
  const most = lowerMedian(clippedBlocks.map(norm));
  const clipped = clippedBlocks.map((row) => clipTo(row, most));
  if (clipped.length === 1) return clipped[0]!;
  const without = (list: readonly Vector[], i: number) => list.filter((_, j) => j !== i);
  const others = clipped.map((_, i) =>
    weightedMean(
      without(clipped, i),
      weights.filter((_, j) => j !== i),
    ),
  );
  const beyond = clipped.map((row, i) => minus(row, others[i]!));
  const tau = lowerMedian(beyond.map(norm));
  const kept = beyond.map((row, i) => clipTo(row, tau).map((value, k) => value + others[i]![k]!));
  return weightedMean(kept, weights);
}

export function oracleAggregate(rule: AggregationRule, rows: readonly Vector[], weights: Vector): Vector {
  const n = rows.length;
  switch (rule.name) {
    case 'mean':
      return weightedMean(rows, weights);
    case 'median':
      return median(rows);
    case 'trimmed-mean': {
      const k = n < 3 ? 0 : Math.min(Math.max(1, Math.floor(rule.beta * n)), Math.floor((n - 1) / 2));
      return ranks(rows, k, n - k);
    }
    case 'krum':
      return krum(rows, rule.hostile ?? Math.floor((n - 3) / 2), 1);
    case 'multi-krum': {
      const hostile = rule.hostile ?? Math.floor((n - 3) / 2);
      return krum(rows, hostile, rule.keep ?? n - hostile - 2);
    }
    case 'centered-clipping':
      return centeredClipping(rows, weights, rule.iterations, rule.tau);
    case 'geometric-median':
      return geometricMedian(rows, weights);
    case 'clipped-centering': {
      const most = lowerMedian(rows.map(norm));
      return centeredClipping(
        rows.map((row) => clipTo(row, most)),
        weights,
        5,
      );
    }
    case 'clipped-leave-one-out':
      return clippedLeaveOneOut(rows, weights);
    default:
      return unreachable(rule);
  }
}
