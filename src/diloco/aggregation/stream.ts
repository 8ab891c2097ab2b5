/**
 * Contributions as rows that are read chunk by chunk into buffers of a kernel memory, however many times a rule needs
 * them: memory stays at (n + 2) chunks, whatever the length. Knows neither codecs nor rules.
 */
import { assert } from '../../std/assert.ts';
import { type KernelMemory, reductionBlock, rowsMax } from '../../tensor/kernels/kernels.ts';

/** Contributions of one cohort in one round: traffic does not grow with the network. The kernels hold one row more. */
export const contributionsMax = rowsMax - 1;

/**
 * Elements read at a time. Every rule gives the same bits for any multiple of `reductionBlock`, this one being a
 * good fit for second-level caches.
 */
export const chunkLength = 4 * reductionBlock;

export interface ContributionRow {
  /** √batches, or another positive number; used by the rules that weigh. */
  readonly weight: number;
  /** Its length in f64, where that is known: it saves the rules that need it a read. Of all contributions, or of none. */
  readonly norm?: number | undefined;
  /** out = elements [start, start + out.length); `start` is a multiple of 4096. All must be finite. */
  read(start: number, out: Float32Array): void;
}

/** Receives elements [start, start + chunk.length) of the result, in order, once; the chunk is reused afterwards. */
export type WriteChunk = (start: number, chunk: Float32Array) => void;

export interface RowStream {
  readonly n: number;
  readonly length: number;
  /** Positive, with sum 1. */
  readonly weights: readonly number[];
  /** Lengths of the contributions, where they are known. */
  readonly norms: readonly number[] | undefined;
  readonly kernels: KernelMemory;
  /**
   * Visits all chunks in order. `rows` are the contributions (only those `wanted`, if given), which the visitor may
   * overwrite; `median` and `out` are free buffers of the same length.
   */
  forEachChunk(visit: (chunk: Chunk) => void, wanted?: readonly boolean[]): void;
}

export interface Chunk {
  readonly start: number;
  readonly rows: readonly Float32Array[];
  readonly median: Float32Array;
  readonly out: Float32Array;
}

export interface StreamOptions {
  readonly contributions: readonly ContributionRow[];
  /** Elements of the flat vector. */
  readonly length: number;
  /** Needs room for (n + 2) chunks, and for what `read` allocates. */
  readonly kernels: KernelMemory;
  /** A multiple of `reductionBlock`; the same bits for all. */
  readonly chunkLength?: number;
}

/** Bytes of kernel memory that a stream of `n` rows takes. */
export function streamBytes(n: number, chunk = chunkLength): number {
  return (n + 2) * 4 * chunk;
}

/** Runs `body` with a stream whose buffers are given back afterwards. */
export function withRowStream<T>(options: StreamOptions, body: (stream: RowStream) => T): T {
  const { contributions, length, kernels } = options;
  const size = Math.min(
    options.chunkLength ?? chunkLength,
    Math.ceil(length / reductionBlock) * reductionBlock,
  );
  const n = contributions.length;
  assert(size % reductionBlock === 0, `chunks of ${size} elements`);
  assert(n >= 1 && n <= contributionsMax, `${n} contributions, not 1 to ${contributionsMax}`);
  const total = contributions.reduce((sum, { weight }) => sum + weight, 0);
  for (const { weight } of contributions) assert(weight > 0 && Number.isFinite(weight), `weight ${weight}`);
  const position = kernels.mark();
  const buffers = Array.from({ length: n + 2 }, () => kernels.allocF32(size));
  const forEachChunk: RowStream['forEachChunk'] = (visit, wanted) => {
    for (let start = 0; start < length; start += size) {
      const [out, median, ...all] = buffers.map((buffer) => buffer.subarray(0, length - start)) as [
        Float32Array,
        Float32Array,
        ...Float32Array[],
      ];
      const rows = all.filter((_, i) => wanted?.[i] ?? true);
      let next = 0;
      for (const [i, contribution] of contributions.entries()) {
        if (wanted?.[i] ?? true) contribution.read(start, rows[next++]!);
      }
      visit({ start, rows, median, out });
    }
  };
  try {
    return body({
      n,
      length,
      kernels,
      weights: contributions.map(({ weight }) => weight / total),
      norms: knownNorms(contributions),
      forEachChunk,
    });
  } finally {
    kernels.reset(position);
  }
}

function knownNorms(contributions: readonly ContributionRow[]): readonly number[] | undefined {
  const norms = contributions.flatMap(({ norm }) => norm ?? []);
  return norms.length === contributions.length ? norms : undefined;
}

/** Reads once more and writes Σ coefficients[i]·row i, skipping rows whose coefficient is zero. */
export function writeCombination(
  stream: RowStream,
  coefficients: readonly number[],
  write: WriteChunk,
): void {
  const wanted = coefficients.map((coefficient) => coefficient !== 0);
  const used = coefficients.filter((coefficient) => coefficient !== 0);
  stream.forEachChunk(({ start, rows, out }) => {
    if (used.length === 0) out.fill(0);
    else stream.kernels.combineRows(out, rows, used);
    write(start, out);
  }, wanted);
}
