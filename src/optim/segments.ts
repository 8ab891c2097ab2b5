/**
 * Where the state of a stage lives: one linear memory per segment (embedding, each layer, head), with every kind of
 * state as one contiguous slab in the order of `parameterList`. Slabs are padded with zeros to whole compression
 * chunks, so the segments in order form one flat vector whose chunks never straddle two segments.
 */

import type { ModelConfig } from '../model/config.ts';
import { type ParameterSpec, parameterList, type StageSpec } from '../model/parameters.ts';
import { assert } from '../std/assert.ts';
import { sizeOf } from '../tensor/graph.ts';
import type { KernelMemory } from '../tensor/kernels/kernels.ts';

/** Elements of one chunk of the flat vector: 64 × 64, the unit of compression (SparseLoCo). */
export const chunkLength = 4096;

/** One contiguous slab for each kind of state; all have the segment's padded length. */
export interface Slabs {
  readonly weights: Float32Array;
  /** The sum of one path's microbatches. */
  readonly gradients: Float32Array;
  readonly firstMoments: Float32Array;
  readonly secondMoments: Float32Array;
  /** w_r, the agreed weights that this round started from. */
  readonly base: Float32Array;
  /** v, the outer momentum. */
  readonly velocity: Float32Array;
  readonly errorFeedback: Float32Array;
  /** Work space of one operation; holds nothing between two. */
  readonly scratch: Float32Array;
}

export interface Segment {
  readonly name: string;
  readonly memory: KernelMemory;
  readonly slabs: Slabs;
  /** Through which kernels reach what lies elsewhere: whole chunks, at most `stagingLength` elements. */
  readonly staging: Float32Array;
  /** Padded to a multiple of `chunkLength`. */
  readonly length: number;
  /** Place of the segment's first element in the flat vector. */
  readonly offset: number;
  /** Elements of matrices, which come first and alone decay. */
  readonly matrixLength: number;
  /** Elements in use; the rest of each slab is zero. */
  readonly usedLength: number;
  readonly parameters: readonly ParameterSpec[];
  /** Views of the parameters in `weights`, `base` and `gradients`, by name. */
  readonly weightViews: Readonly<Record<string, Float32Array>>;
  readonly baseViews: Readonly<Record<string, Float32Array>>;
  readonly gradientViews: Readonly<Record<string, Float32Array>>;
}

const slabCount = 8;
/** 256 KiB: stays in the second-level cache between a copy and the kernel. */
const stagingLength = 16 * chunkLength;
const slackBytes = 64 * 1024;

export interface SegmentOptions {
  readonly config: ModelConfig;
  readonly stage: StageSpec;
  readonly createMemory: (options: { bytes: number }) => KernelMemory;
  /** Further bytes wanted in the embedding's memory, if there is one, for the rows of a microbatch. */
  readonly embeddingScratchBytes: number;
}

/** One more slab for the encoded bytes of the segment, and slack for block scales and alignment. */
function memoryBytes(length: number, extraBytes: number): number {
  const elements = (slabCount + 1) * length + Math.min(length, stagingLength);
  return 4 * elements + extraBytes + slackBytes;
}

/** What the segments of a stage take in all, before they are allocated. */
export function segmentsBytes(config: ModelConfig, stage: StageSpec, embeddingScratchBytes: number): number {
  let bytes = 0;
  for (const [name, parameters] of groupBySegment(parameterList(config, stage)))
    bytes += memoryBytes(paddedLength(parameters), name === 'embedding' ? embeddingScratchBytes : 0);
  return bytes;
}

/** Lays out and allocates the stage. All slabs are zero. */
export function createSegments(options: SegmentOptions): Segment[] {
  const segments: Segment[] = [];
  let offset = 0;
  for (const [name, parameters] of groupBySegment(parameterList(options.config, options.stage))) {
    const extra = name === 'embedding' ? options.embeddingScratchBytes : 0;
    const segment = createSegment(name, parameters, offset, options.createMemory, extra);
    segments.push(segment);
    offset += segment.length;
  }
  return segments;
}

function groupBySegment(parameters: readonly ParameterSpec[]): Map<string, ParameterSpec[]> {
  const groups = new Map<string, ParameterSpec[]>();
  for (const parameter of parameters) {
    const group = groups.get(parameter.segment);
    if (group) group.push(parameter);
    else groups.set(parameter.segment, [parameter]);
  }
  return groups;
}

function createSegment(
  name: string,
  parameters: readonly ParameterSpec[],
  offset: number,
  createMemory: SegmentOptions['createMemory'],
  extraBytes: number,
): Segment {
  let usedLength = 0;
  let matrixLength = 0;
  for (const parameter of parameters) {
    const size = sizeOf(parameter.shape);
    if (parameter.kind === 'matrix') {
      assert(matrixLength === usedLength, `${name}: matrices must come before vectors`);
      matrixLength += size;
    }
    usedLength += size;
  }
  const length = paddedLength(parameters);
  const memory = createMemory({ bytes: memoryBytes(length, extraBytes) });
  const slab = () => memory.allocF32(length);
  const slabs: Slabs = {
    weights: slab(),
    gradients: slab(),
    firstMoments: slab(),
    secondMoments: slab(),
    base: slab(),
    velocity: slab(),
    errorFeedback: slab(),
    scratch: slab(),
  };
  return {
    name,
    memory,
    slabs,
    staging: memory.allocF32(Math.min(length, stagingLength)),
    length,
    offset,
    matrixLength,
    usedLength,
    parameters,
    weightViews: viewsOf(slabs.weights, parameters),
    baseViews: viewsOf(slabs.base, parameters),
    gradientViews: viewsOf(slabs.gradients, parameters),
  };
}

/** Views of the parameters in a vector that holds them one after the other, by name. */
export function viewsOf(
  slab: Float32Array,
  parameters: readonly ParameterSpec[],
): Record<string, Float32Array> {
  const views: Record<string, Float32Array> = {};
  let start = 0;
  for (const parameter of parameters) {
    const end = start + sizeOf(parameter.shape);
    views[parameter.name] = slab.subarray(start, end);
    start = end;
  }
  return views;
}

/**
 * Views of the parameters in a flat vector, by name, where nothing but the vector is at hand; undefined for a vector of
 * another length.
 */
export function flatViews(
  config: ModelConfig,
  stage: StageSpec,
  flat: Float32Array,
): Record<string, Float32Array> | undefined {
  const views: Record<string, Float32Array> = {};
  let offset = 0;
  for (const parameters of groupBySegment(parameterList(config, stage)).values()) {
    Object.assign(views, viewsOf(flat.subarray(offset), parameters));
    offset += paddedLength(parameters);
  }
  return offset === flat.length ? views : undefined;
}

/** Length of a stage's flat vector, padding included, from dimensions alone. */
export function stageFlatLength(config: ModelConfig, stage: StageSpec): number {
  let length = 0;
  for (const parameters of groupBySegment(parameterList(config, stage)).values())
    length += paddedLength(parameters);
  return length;
}

function paddedLength(parameters: readonly ParameterSpec[]): number {
  const usedLength = parameters.reduce((sum, { shape }) => sum + sizeOf(shape), 0);
  return Math.ceil(usedLength / chunkLength) * chunkLength;
}

/** Length of the flat vector of all segments, padding included. */
export function flatLength(segments: readonly Segment[]): number {
  const last = segments.at(-1);
  return last ? last.offset + last.length : 0;
}

/** Calls `visit` for each piece of the flat range [start, end), in order; pieces do not straddle segments. */
export function forEachPiece(
  segments: readonly Segment[],
  start: number,
  end: number,
  visit: (segment: Segment, from: number, to: number, flatFrom: number) => void,
): void {
  for (const segment of segments) {
    const from = Math.max(start, segment.offset);
    const to = Math.min(end, segment.offset + segment.length);
    if (from < to) visit(segment, from - segment.offset, to - segment.offset, from);
  }
}
