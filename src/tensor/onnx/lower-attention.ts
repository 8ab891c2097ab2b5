/**
 * Causal attention in static chunks of query rows, so that the scores above the diagonal are mostly never computed.
 * The query heads that share one key head are folded into rows, [B, KV, G·S, hd]: the gradients of keys and values
 * then sum over the group inside one product. It knows no graph, only shapes and the emitter.
 * Source of the backward: Dao et al. 2022 (FlashAttention), equation 4: dS = P ∘ (dP − Σ dO∘O).
 */
import type { Shape } from '../graph.ts';
import type { Emitter } from './emitter.ts';

const chunkRows = 128;
/** Added to scores of later keys: exp of it is zero in f32, and it survives every subtraction of a row maximum. */
const maskedScore = -1e30;

interface Layout {
  readonly batch: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly group: number;
  readonly length: number;
  readonly width: number;
  readonly scale: number;
}

function layoutOf(q: Shape, k: Shape): Layout {
  const [batch, heads, length, width] = q as [number, number, number, number];
  const kvHeads = k[1]!;
  return { batch, heads, kvHeads, group: heads / kvHeads, length, width, scale: 1 / Math.sqrt(width) };
}

interface Chunk {
  readonly start: number;
  readonly end: number;
  readonly rows: number;
}

function chunksOf({ length }: Layout): Chunk[] {
  const chunks: Chunk[] = [];
  for (let start = 0; start < length; start += chunkRows) {
    const end = Math.min(length, start + chunkRows);
    chunks.push({ start, end, rows: end - start });
  }
  return chunks;
}

/** Rows [start, end) of every head of x [B,H,S,last], folded to [B, KV, G·rows, last]. */
function foldRows(emit: Emitter, x: string, layout: Layout, chunk: Chunk, last: number): string {
  const rows = emit.slice(x, 2, chunk.start, chunk.end);
  return emit.reshape(rows, [layout.batch, layout.kvHeads, layout.group * chunk.rows, last]);
}

/** Joins folded chunks back to [B, H, S, hd]. */
function unfoldRows(
  emit: Emitter,
  parts: readonly string[],
  chunks: readonly Chunk[],
  layout: Layout,
): string {
  const { batch, heads, width } = layout;
  const unfolded = parts.map((part, i) => emit.reshape(part, [batch, heads, chunks[i]!.rows, width]));
  return unfolded.length === 1 ? unfolded[0]! : emit.op('Concat', unfolded, { axis: 2 });
}

function keysOf(emit: Emitter, x: string, layout: Layout, chunk: Chunk): string {
  return chunk.end === layout.length ? x : emit.slice(x, 2, 0, chunk.end);
}

/** [rows, end]: zero where the key is not later than the query. */
function causalMask(chunk: Chunk): Float32Array {
  const mask = new Float32Array(chunk.rows * chunk.end);
  for (let row = 0; row < chunk.rows; row++) {
    mask.fill(maskedScore, row * chunk.end + chunk.start + row + 1, (row + 1) * chunk.end);
  }
  return mask;
}

/** Probabilities of one chunk [B, KV, G·rows, end]. The gradient emits the same nodes and so shares them. */
function probabilities(emit: Emitter, q: string, k: string, layout: Layout, chunk: Chunk): string {
  const { batch, kvHeads, group, scale } = layout;
  const { rows, end } = chunk;
  const queries = foldRows(emit, q, layout, chunk, layout.width);
  const keys = keysOf(emit, k, layout, chunk);
  const scores = emit.fusedMatmul(queries, keys, { transB: true, alpha: scale });
  // Unfolded for the mask, which then is as small as one head's and stays in cache.
  const unfolded = emit.reshape(scores, [batch, kvHeads, group, rows, end]);
  const masked = emit.op('Add', [unfolded, emit.constant(causalMask(chunk), [rows, end])]);
  return emit.reshape(emit.op('Softmax', [masked], { axis: -1 }), [batch, kvHeads, group * rows, end]);
}

/** q [B,H,S,hd], k and v [B,KV,S,hd] → [B,H,S,hd]. */
export function lowerAttention(
  emit: Emitter,
  q: string,
  k: string,
  v: string,
  shapes: { q: Shape; k: Shape },
): string {
  const layout = layoutOf(shapes.q, shapes.k);
  const chunks = chunksOf(layout);
  const parts = chunks.map((chunk) =>
    emit.fusedMatmul(probabilities(emit, q, k, layout, chunk), keysOf(emit, v, layout, chunk)),
  );
  return unfoldRows(emit, parts, chunks, layout);
}

/** q, k, v, out, dOut → dq, dk, dv. */
export function lowerAttentionGrad(
  emit: Emitter,
  names: { q: string; k: string; v: string; out: string; dOut: string },
  shapes: { q: Shape; k: Shape },
): [string, string, string] {
  const { q, k, v, out, dOut } = names;
  const layout = layoutOf(shapes.q, shapes.k);
  const chunks = chunksOf(layout);
  const rowTerms = emit.reduceSum(emit.op('Mul', [dOut, out]), [3]);
  const dqParts: string[] = [];
  const dkParts: string[] = [];
  const dvParts: string[] = [];
  for (const chunk of chunks) {
    const p = probabilities(emit, q, k, layout, chunk);
    const rows = foldRows(emit, q, layout, chunk, layout.width);
    const dRows = foldRows(emit, dOut, layout, chunk, layout.width);
    const rowTerm = foldRows(emit, rowTerms, layout, chunk, 1);
    const dp = emit.fusedMatmul(dRows, keysOf(emit, v, layout, chunk), { transB: true });
    const ds = emit.op('Mul', [p, emit.op('Sub', [dp, rowTerm])]);
    dvParts.push(emit.fusedMatmul(p, dRows, { transA: true }));
    dkParts.push(emit.fusedMatmul(ds, rows, { transA: true, alpha: layout.scale }));
    dqParts.push(emit.fusedMatmul(ds, keysOf(emit, k, layout, chunk), { alpha: layout.scale }));
  }
  const dq = unfoldRows(emit, dqParts, chunks, layout);
  return [dq, sumPrefixes(emit, dkParts, chunks), sumPrefixes(emit, dvParts, chunks)];
}

/** Sums parts [B, KV, end_i, hd], each about the first end_i keys. */
function sumPrefixes(emit: Emitter, parts: readonly string[], chunks: readonly Chunk[]): string {
  return parts.reduce((sum, part, i) => {
    const widened = emit.pad(sum, 4, 2, 0, chunks[i]!.end - chunks[i - 1]!.end);
    return emit.op('Add', [widened, part]);
  });
}
