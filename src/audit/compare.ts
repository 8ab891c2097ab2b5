/**
 * How far a claimed state lies from a recomputed one, by norms and never by elements: single elements of AdamW's update
 * may be half a step off where a gradient is as small as the rounding. Plain f64 arithmetic, so all auditors get the same
 * numbers.
 */

import { tensorLeafRange } from '../diloco/local-state.ts';
import { flatLength, forEachPiece, type Segment } from '../optim/segments.ts';
import type { Disagreement } from './tolerance.ts';

type Leaves = readonly Uint8Array[];
type Tensors = Readonly<Record<'weights' | 'firstMoments' | 'secondMoments', Leaves>>;

export interface Comparison {
  readonly disagreement: Disagreement;
  /** ‖w_claimed − w_start‖². */
  readonly claimedUpdate: number;
}

interface Sums {
  update: number;
  updateOff: number;
  moments: number;
  momentsOff: number;
  direction: number;
  directionOff: number;
  claimedUpdate: number;
}

/**
 * The recomputed state lies in the segments. Steps that overflowed must have overflowed in the claim, too; a claim of
 * numbers where there are none, or of none where there are, is infinitely far off.
 */
export function compareStates(
  segments: readonly Segment[],
  start: Tensors,
  claimed: Tensors,
  epsilon: number,
): Comparison {
  const sums: Sums = {
    update: 0,
    updateOff: 0,
    moments: 0,
    momentsOff: 0,
    direction: 0,
    directionOff: 0,
    claimedUpdate: 0,
  };
  const flat = flatLength(segments);
  for (const index of claimed.weights.keys()) {
    const [from, to] = tensorLeafRange(flat, index);
    const leaf = (leaves: Leaves) => new Float32Array(leaves[index]!.slice().buffer);
    const [before, w, m, v] = [
      leaf(start.weights),
      leaf(claimed.weights),
      leaf(claimed.firstMoments),
      leaf(claimed.secondMoments),
    ];
    forEachPiece(segments, from, to, ({ slabs }, pieceFrom, pieceTo, flatFrom) => {
      const at = flatFrom - from;
      const length = pieceTo - pieceFrom;
      const part = (array: Float32Array) => array.subarray(at, at + length);
      const mine = {
        w: slabs.weights.subarray(pieceFrom, pieceTo),
        m: slabs.firstMoments.subarray(pieceFrom, pieceTo),
        v: slabs.secondMoments.subarray(pieceFrom, pieceTo),
      };
      addPiece(sums, mine, { w: part(w), m: part(m), v: part(v) }, part(before), epsilon);
    });
  }
  return {
    disagreement: {
      update: ratio(sums.updateOff, sums.update),
      moments: ratio(sums.momentsOff, sums.moments),
      direction: ratio(sums.directionOff, sums.direction),
    },
    claimedUpdate: sums.claimedUpdate,
  };
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
    if (!areFinite(w, m, v)) {
      if (areFinite(theirW, theirM, theirV)) sums.updateOff = Number.POSITIVE_INFINITY;
      continue;
    }
    const start = before[i]!;
    const direction = m / (Math.sqrt(v) + epsilon);
    const theirs = theirM / (Math.sqrt(theirV) + epsilon);
    sums.update += (w - start) * (w - start);
    sums.updateOff += (theirW - w) * (theirW - w);
    sums.claimedUpdate += (theirW - start) * (theirW - start);
    sums.moments += m * m;
    sums.momentsOff += (theirM - m) * (theirM - m);
    sums.direction += direction * direction;
    sums.directionOff += (theirs - direction) * (theirs - direction);
  }
}

function areFinite(w: number, m: number, v: number): boolean {
  return Number.isFinite(w) && Number.isFinite(m) && Number.isFinite(v);
}

/** √(off ÷ whole): nothing at all is no distance, and NaN is the largest there is. */
function ratio(off: number, whole: number): number {
  if (off === 0) return 0;
  const distance = Math.sqrt(off / whole);
  return Number.isNaN(distance) ? Number.POSITIVE_INFINITY : distance;
}

export function isWithin(distance: number, tolerance: number): boolean {
  return distance <= tolerance;
}
