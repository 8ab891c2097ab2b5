/**
 * Sums of gradients over microbatches, and what is done with a whole sum: its norm, and AdamW. The first sum in use lies
 * in the segments' own memory, those beside it in plain arrays, through a staging piece: WebAssembly memory cannot grow,
 * and most replicas never need a second. The bits are the same in both. It knows no graphs and no paths.
 */
import { embeddingName } from '../model/parameters.ts';
import { must } from '../std/assert.ts';
import type { AdamWOptions } from '../tensor/kernels/kernels.ts';
import { type Segment, viewsOf } from './segments.ts';

/** Σ g over microbatches of one path. Of a sum of nothing (`count` 0) the values mean nothing. */
export interface GradientSum {
  /** Microbatches in it. */
  count: number;
  /** One for each segment, of its padded length. */
  readonly slabs: readonly Float32Array[];
  /** The same by parameter. */
  readonly views: Readonly<Record<string, Float32Array>>;
}

export interface GradientSums {
  /** An empty one. */
  take(): GradientSum;
  give(sum: GradientSum): void;
  /** Lets go of the memory of sums that are not in use, but for the first. */
  trim(): void;
}

export function createGradientSums(segments: readonly Segment[]): GradientSums {
  const first = sumOf(
    segments,
    segments.map(({ slabs }) => slabs.gradients),
  );
  let free = [first];
  return {
    take: () => {
      const sum =
        free.pop() ??
        sumOf(
          segments,
          segments.map(({ length }) => new Float32Array(length)),
        );
      sum.count = 0;
      return sum;
    },
    give: (sum) => {
      // The first, which costs no copies, is the next one taken.
      if (sum === first) free.push(sum);
      else free.unshift(sum);
    },
    trim: () => {
      free = free.filter((sum) => sum === first);
    },
  };
}

function sumOf(segments: readonly Segment[], slabs: readonly Float32Array[]): GradientSum {
  const views = segments.map(({ parameters }, i) => viewsOf(slabs[i]!, parameters));
  return { count: 0, slabs, views: Object.assign({}, ...views) };
}

/** sum += the gradients in the segments' scratch, but for the embedding's when it comes as rows only. */
export function addScratch(segments: readonly Segment[], sum: GradientSum, withEmbedding: boolean): void {
  for (const [i, segment] of segments.entries()) {
    if (segment.name === 'embedding' && !withEmbedding) continue;
    const { memory, slabs, usedLength } = segment;
    forEachPart(segment, sum.slabs[i]!, 0, usedLength, (part, start, end) => {
      memory.addScaled(part, slabs.scratch.subarray(start, end), 1);
      return true;
    });
  }
}

/** sum[ids[i]] += rows[i] in the embedding's gradient, in order of i. `ids` and `rows` lie in the embedding's memory. */
export function addEmbeddingRows(
  segments: readonly Segment[],
  sum: GradientSum,
  ids: Int32Array,
  rows: Float32Array,
): void {
  const width = rows.length / ids.length;
  const segment = must(
    segments.find(({ name }) => name === 'embedding'),
    'a stage with the embedding',
  );
  const table = must(sum.views[embeddingName], 'the embedding’s gradient');
  if (table.buffer === rows.buffer) {
    segment.memory.scatterAddRows(table, ids, rows, width);
    return;
  }
  const staged = segment.staging.subarray(0, width);
  for (const [i, id] of ids.entries()) {
    const row = table.subarray(id * width, (id + 1) * width);
    staged.set(row);
    segment.memory.addScaled(staged, rows.subarray(i * width, (i + 1) * width), 1);
    row.set(staged);
  }
}

/** Σ g² of the sum by segment, in order. */
export function sumSquares(segments: readonly Segment[], sum: GradientSum): number[] {
  return segments.map((segment, i) => {
    let squares = 0;
    forEachPart(segment, sum.slabs[i]!, 0, segment.length, (part) => {
      squares = segment.memory.sumSquares(part, squares);
      return false;
    });
    return squares;
  });
}

/** AdamW on the weights with the sum as gradient; weight decay acts on matrices only. */
export function applyAdamW(segments: readonly Segment[], sum: GradientSum, options: AdamWOptions): void {
  for (const [i, segment] of segments.entries()) {
    const { weights, firstMoments, secondMoments } = segment.slabs;
    const range = (from: number, to: number, weightDecay: number) =>
      forEachPart(segment, sum.slabs[i]!, from, to, (gradients, start, end) => {
        segment.memory.adamw(
          weights.subarray(start, end),
          gradients,
          firstMoments.subarray(start, end),
          secondMoments.subarray(start, end),
          { ...options, weightDecay },
        );
        return false;
      });
    range(0, segment.matrixLength, options.weightDecay);
    range(segment.matrixLength, segment.usedLength, 0);
  }
}

/**
 * Elements [from, to) of a sum's slab where kernels reach them: in one part, or through the staging piece. `visit`
 * says whether it wrote. Parts begin at whole reduction blocks after `from`.
 */
function forEachPart(
  segment: Segment,
  slab: Float32Array,
  from: number,
  to: number,
  visit: (part: Float32Array, start: number, end: number) => boolean,
): void {
  if (from === to) return;
  if (slab === segment.slabs.gradients) {
    visit(slab.subarray(from, to), from, to);
    return;
  }
  for (let start = from; start < to; start += segment.staging.length) {
    const end = Math.min(to, start + segment.staging.length);
    const piece = slab.subarray(start, end);
    const staged = segment.staging.subarray(0, end - start);
    staged.set(piece);
    if (visit(staged, start, end)) piece.set(staged);
  }
}
