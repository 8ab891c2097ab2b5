/**
 * Which calls of a stage run together, in which shape: a pure function of the slots they stand in. Only neighbours can
 * share a run, because a run reads its caches as one range of memory. It knows no tensors.
 */
import { must } from '../std/assert.ts';

/** Sequences × positions of a run. A prefill call is always `1x32`, padded where it has fewer positions. */
export const decodeShapes = ['1x1', '8x1', '32x1', '1x32'] as const;
export type DecodeShape = (typeof decodeShapes)[number];

export function sequencesOf(shape: DecodeShape): number {
  return { '1x1': 1, '8x1': 8, '32x1': 32, '1x32': 1 }[shape];
}

/** About what a run costs, in runs of one sequence: reading the weights is most of it at every width. */
const costOf = { '1x1': 1, '8x1': 3, '32x1': 6.5 } as const;

export interface PlaceableCall {
  readonly session: { readonly slot: number };
  /** Positions. */
  readonly count: number;
  /** The shape it must have; any when undefined. */
  readonly shape: DecodeShape | undefined;
}

export interface PlannedRun<Call> {
  readonly shape: DecodeShape;
  readonly firstSlot: number;
  readonly calls: readonly Call[];
}

/**
 * Every call once. Ranges are aligned to their width, and no range is wider than `width`, the slots that lie together
 * in memory (1, 8 or 32).
 */
export function planCalls<Call extends PlaceableCall>(
  calls: readonly Call[],
  width: number,
): PlannedRun<Call>[] {
  const runs: PlannedRun<Call>[] = [];
  const free: Call[] = [];
  const ranges = new Map<string, { shape: DecodeShape; firstSlot: number; calls: Call[] }>();
  for (const call of calls) {
    const { slot } = call.session;
    if (call.shape === '1x32' || call.count > 1) runs.push({ shape: '1x32', firstSlot: slot, calls: [call] });
    else if (call.shape === undefined) free.push(call);
    else addTo(ranges, call.shape, call);
  }
  for (const [shape, group] of chooseShapes(free, width))
    for (const call of group) addTo(ranges, shape, call);
  return [...ranges.values(), ...runs];
}

function addTo<Call extends PlaceableCall>(
  ranges: Map<string, { shape: DecodeShape; firstSlot: number; calls: Call[] }>,
  shape: DecodeShape,
  call: Call,
): void {
  const firstSlot = rangeStart(call, sequencesOf(shape));
  const key = `${shape} ${firstSlot}`;
  const range = ranges.get(key) ?? { shape, firstSlot, calls: [] };
  range.calls.push(call);
  ranges.set(key, range);
}

function rangeStart(call: PlaceableCall, width: number): number {
  return call.session.slot - (call.session.slot % width);
}

function groupByRange<Call extends PlaceableCall>(calls: readonly Call[], width: number): Call[][] {
  const groups = new Map<number, Call[]>();
  for (const call of calls) {
    const start = rangeStart(call, width);
    if (!groups.has(start)) groups.set(start, []);
    must(groups.get(start), 'group').push(call);
  }
  return [...groups.values()];
}

/** The cheapest cover of each range of 32 slots. */
function chooseShapes<Call extends PlaceableCall>(
  calls: readonly Call[],
  width: number,
): [DecodeShape, Call[]][] {
  return groupByRange(calls, 32).flatMap((wide): [DecodeShape, Call[]][] => {
    const narrow = groupByRange(wide, 8).map((group): [DecodeShape, Call[]] => {
      const together = width >= 8 && costOf['8x1'] <= group.length * costOf['1x1'];
      return [together ? '8x1' : '1x1', group];
    });
    const cost = narrow.reduce(
      (sum, [shape, group]) => sum + (shape === '8x1' ? costOf['8x1'] : group.length * costOf['1x1']),
      0,
    );
    return width >= 32 && costOf['32x1'] < cost ? [['32x1', wide]] : narrow;
  });
}
