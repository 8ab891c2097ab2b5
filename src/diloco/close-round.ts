/**
 * The outer step of a decided list: screen → aggregate → error feedback → Nesterov on (w_r, v). Pure arithmetic over
 * the segments, in the decided order, so every honest node gets the same bits. It knows no peers and no state hashes.
 */
import { flatLength, forEachPiece, type Segment } from '../optim/segments.ts';
import type { KernelMemory } from '../tensor/kernels/kernels.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { aggregate } from './aggregation/aggregate.ts';
import { type AggregatorName, ruleFor } from './aggregation/rules.ts';
import { contributionsMax, streamBytes } from './aggregation/stream.ts';
import { type BlobShape, decodeRange } from './compression/blob.ts';
import type { CodecName } from './compression/codec.ts';
import { residual } from './compression/error-feedback.ts';
import type { RoundRequest } from './replica.ts';
import { type ScreeningRejection, screen } from './screening.ts';

export interface OuterSettings {
  readonly compression: CodecName;
  readonly aggregator: AggregatorName;
  /** η and μ of the outer step. */
  readonly learningRate: number;
  readonly momentum: number;
}

export interface CloseRoundOptions {
  readonly segments: readonly Segment[];
  readonly shape: BlobShape;
  readonly outer: OuterSettings;
  readonly request: RoundRequest;
  /** From `createAggregationMemory`; nothing in it outlives the call. */
  readonly kernels: KernelMemory;
  /** Whether error feedback holds this node's whole contribution m of the round. */
  readonly contributed: boolean;
}

/** No honest pseudo-gradient is this many times longer than the weights it belongs to. */
const normRatioMax = 10;

/** Room for decoding one piece beside the stream's buffers. */
const decodeBytes = 1024 * 1024;

/** Work space for closing rounds: make one and keep it, for a memory of its own costs much address space. */
export function createAggregationMemory(): KernelMemory {
  return createKernelMemory({ bytes: streamBytes(contributionsMax) + decodeBytes });
}

/** Moves (w_r, v) to r + 1; the contributions that screening left out come back with their codes. */
export function closeRound(options: CloseRoundOptions): readonly ScreeningRejection[] {
  const { segments, shape, outer, kernels } = options;
  const { accepted, norms, rejected } = screened(options);
  updateErrorFeedback(options, rejected);
  if (accepted.length > 0) {
    aggregate({
      rule: ruleFor(outer.aggregator, outer.compression, accepted.length).rule,
      contributions: accepted.map(({ batches, blob }, i) => ({
        weight: Math.sqrt(batches),
        norm: norms?.[i],
        read: (start, out) => decodeRange(blob, shape, start, out, kernels),
      })),
      length: flatLength(segments),
      kernels,
      write: (start, chunk) => {
        forEachPiece(segments, start, start + chunk.length, ({ slabs }, from, to, flatFrom) => {
          slabs.scratch
            .subarray(from, to)
            .set(chunk.subarray(flatFrom - start, flatFrom - start + to - from));
        });
      },
    });
    for (const { memory, slabs } of segments) {
      memory.outerStep(slabs.base, slabs.velocity, slabs.scratch, outer.learningRate, outer.momentum);
    }
  }
  return rejected;
}

/** `--aggregator mean` is the bad example: it runs unscreened. */
function screened({ segments, shape, outer, request, kernels }: CloseRoundOptions) {
  if (outer.aggregator === 'mean') return { accepted: request.contributions, norms: undefined, rejected: [] };
  const squares = segments.reduce((sum, { memory, slabs }) => memory.sumSquares(slabs.base, sum), 0);
  return screen(request.contributions, { shape, kernels, normMax: normRatioMax * Math.sqrt(squares) });
}

/**
 * After a round that took this node's blob in, only what the codec lost stays; a contribution that was left out stays
 * whole; one that screening refused is dropped, or it would grow and be refused for ever. A duplicate's
 * content was taken in under another name.
 */
function updateErrorFeedback(options: CloseRoundOptions, rejected: readonly ScreeningRejection[]): void {
  const { segments, shape, request, contributed } = options;
  const own = request.contributions.find((one) => one.nodeId === request.ownNodeId);
  if (!contributed || !own) return;
  const refused = rejected.some((one) => one.node === request.ownNodeId && one.code !== 'duplicate');
  for (const { memory, slabs, offset } of segments) {
    if (refused) slabs.errorFeedback.fill(0);
    else residual(slabs.errorFeedback, own.blob, shape, offset, memory);
  }
}
