/**
 * How far a claimed state lies from a recomputed one, by norms and never by elements, but for the few that an honest
 * engine may have elsewhere. Plain f64 arithmetic in a fixed order, so all auditors get the same numbers.
 */
import { tensorLeafRange } from '../diloco/local-state.ts';
import { flatLength, forEachPiece, type Segment } from '../optim/segments.ts';
import { type Disagreement, outlierStepsMax, outliersMax } from './tolerance.ts';

type Leaves = readonly Uint8Array[];
type Tensors = Readonly<Record<'weights' | 'firstMoments' | 'secondMoments', Leaves>>;

export interface Comparison {
  readonly disagreement: Disagreement;
  /** Whether any weight of the claim has changed. */
  readonly hasMoved: boolean;
}

export interface CompareOptions {
  readonly start: Tensors;
  readonly claimed: Tensors;
  /** AdamW's. */
  readonly epsilon: number;
  /** Sum of the learning rates of the interval's steps. */
  readonly rates: number;
}

/**
 * The recomputed state lies in the segments. Steps that overflowed must have overflowed in the claim, too; a claim of
 * numbers where there are none, or of none where there are, is infinitely far off.
 */
export function compareStates(
  segments: readonly Segment[],
  { start, claimed, epsilon, rates }: CompareOptions,
): Comparison {
  const sums: Sums = {
    update: createDistance(outlierStepsMax * rates),
    moments: createDistance(Number.MAX_VALUE),
    // In steps of rate 1.
    direction: createDistance(outlierStepsMax),
    hasMoved: false,
  };
  const flat = flatLength(segments);
  for (const index of claimed.weights.keys()) {
    const [from, to] = tensorLeafRange(flat, index);
    const leaf = (leaves: Leaves) => new Float32Array(leaves[index]!.slice().buffer);
    const before = leaf(start.weights);
    const theirs = {
      w: leaf(claimed.weights),
      m: leaf(claimed.firstMoments),
      v: leaf(claimed.secondMoments),
    };
    forEachPiece(segments, from, to, ({ slabs }, pieceFrom, pieceTo, flatFrom) => {
      const at = flatFrom - from;
      const part = (array: Float32Array) => array.subarray(at, at + pieceTo - pieceFrom);
      const mine = {
        w: slabs.weights.subarray(pieceFrom, pieceTo),
        m: slabs.firstMoments.subarray(pieceFrom, pieceTo),
        v: slabs.secondMoments.subarray(pieceFrom, pieceTo),
      };
      addPiece(
        sums,
        mine,
        { w: part(theirs.w), m: part(theirs.m), v: part(theirs.v) },
        part(before),
        epsilon,
      );
    });
  }
  const { update, moments, direction, hasMoved } = sums;
  return {
    disagreement: {
      update: update.trimmed(),
      moments: moments.trimmed(),
      direction: direction.trimmed(),
      untrimmed: update.whole(),
    },
    hasMoved,
  };
}

interface Sums {
  readonly update: Distance;
  readonly moments: Distance;
  readonly direction: Distance;
  hasMoved: boolean;
}

interface Piece {
  readonly w: Float32Array;
  readonly m: Float32Array;
  readonly v: Float32Array;
}

function addPiece(sums: Sums, mine: Piece, claimed: Piece, before: Float32Array, epsilon: number): void {
  for (let i = 0; i < before.length; i++) {
    const [w, m, v] = [mine.w[i]!, mine.m[i]!, mine.v[i]!];
    const [theirW, theirM, theirV] = [claimed.w[i]!, claimed.m[i]!, claimed.v[i]!];
    const start = before[i]!;
    if (theirW !== start) sums.hasMoved = true;
    if (!areFinite(w, m, v)) {
      if (areFinite(theirW, theirM, theirV)) sums.update.add(0, Number.POSITIVE_INFINITY);
      continue;
    }
    const direction = m / (Math.sqrt(v) + epsilon);
    sums.update.add(w - start, theirW - w);
    sums.moments.add(m, theirM - m);
    sums.direction.add(direction, theirM / (Math.sqrt(theirV) + epsilon) - direction);
  }
}

function areFinite(w: number, m: number, v: number): boolean {
  return Number.isFinite(w) && Number.isFinite(m) && Number.isFinite(v);
}

interface Distance {
  /** One element: what was recomputed, and how far the claim is off. */
  add(value: number, off: number): void;
  /** √(Σ off² ÷ Σ value²) without the outliers; infinite if one of them is off by more than it may be. */
  trimmed(): number;
  whole(): number;
}

function createDistance(outlierMax: number): Distance {
  let length = 0;
  let near = 0;
  let isBeyond = false;
  /** Squares of the elements furthest off, least first. */
  const furthest = new Float64Array(outliersMax);
  const insert = (square: number) => {
    near += furthest[0]!;
    let place = 0;
    for (; place + 1 < outliersMax && furthest[place + 1]! < square; place++)
      furthest[place] = furthest[place + 1]!;
    furthest[place] = square;
  };
  return {
    add: (value, off) => {
      length += value * value;
      if (!(Math.abs(off) <= outlierMax)) isBeyond = true;
      const square = off * off;
      if (square > furthest[0]!) insert(square);
      else near += square;
    },
    trimmed: () => (isBeyond ? Number.POSITIVE_INFINITY : ratio(near, length)),
    whole: () =>
      ratio(
        furthest.reduce((sum, square) => sum + square, near),
        length,
      ),
  };
}

/** √(off ÷ whole): nothing at all is no distance, and NaN is the largest there is. */
function ratio(off: number, whole: number): number {
  if (off === 0) return 0;
  const distance = Math.sqrt(off / whole);
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
}
