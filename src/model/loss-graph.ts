/**
 * The LM head's loss as graph nodes, in chunks of tokens, so that no [tokens, vocabulary] matrix ever exists whole.
 * The gradient of a chunk is taken right after its loss, while its logits are alive. It knows nothing of layers.
 */
import type { GraphBuilder, Value } from '../tensor/graph.ts';

/** Elements of one chunk's logits: 8 MiB of f32. */
const logitsPerChunkMax = 2_097_152;

/** Tokens per chunk for a vocabulary: a power of two, 32 to 1024. */
export function lossChunkTokens(vocabulary: number): number {
  let tokens = 1024;
  while (tokens > 32 && tokens * vocabulary > logitsPerChunkMax) tokens /= 2;
  return tokens;
}

interface Chunk {
  readonly hidden: Value;
  readonly labels: Value;
  readonly tokens: number;
}

function chunksOf(builder: GraphBuilder, hidden: Value, labels: Value, chunkTokens: number): Chunk[] {
  const total = hidden.shape[0]!;
  if (total <= chunkTokens) return [{ hidden, labels, tokens: total }];
  const chunks: Chunk[] = [];
  for (let start = 0; start < total; start += chunkTokens) {
    const end = Math.min(start + chunkTokens, total);
    chunks.push({
      hidden: builder.slice(hidden, 0, start, end),
      labels: builder.slice(labels, 0, start, end),
      tokens: end - start,
    });
  }
  return chunks;
}

function join(builder: GraphBuilder, parts: readonly Value[]): Value {
  return parts.length === 1 ? parts[0]! : builder.concat(parts, 0);
}

/** hidden [n,d] (normed), table [V,d], labels i32 [n] → loss of each token [n]. */
export function tokenLosses(
  builder: GraphBuilder,
  hidden: Value,
  table: Value,
  labels: Value,
  chunkTokens: number,
): Value {
  const losses = chunksOf(builder, hidden, labels, chunkTokens).map((chunk) =>
    builder.crossEntropy(builder.matmul(chunk.hidden, table, { transB: true }), chunk.labels),
  );
  return join(builder, losses);
}

export interface LossAndGradient {
  /** Mean over all tokens, [1]. */
  readonly loss: Value;
  /** d loss / d hidden, [n,d]. */
  readonly dHidden: Value;
  /** d loss / d table, [V,d]. */
  readonly dTable: Value;
}

/** The mean loss with its gradients; operands as in `tokenLosses`. */
export function lossAndGradient(
  builder: GraphBuilder,
  hidden: Value,
  table: Value,
  labels: Value,
  chunkTokens: number,
): LossAndGradient {
  const total = hidden.shape[0]!;
  const losses: Value[] = [];
  const dHidden: Value[] = [];
  let dTable: Value | undefined;
  for (const chunk of chunksOf(builder, hidden, labels, chunkTokens)) {
    const logits = builder.matmul(chunk.hidden, table, { transB: true });
    losses.push(builder.crossEntropy(logits, chunk.labels));
    const share = builder.constant(new Float32Array(chunk.tokens).fill(1 / total), [chunk.tokens]);
    const dLogits = builder.crossEntropyGrad(logits, chunk.labels, share);
    dHidden.push(builder.matmul(dLogits, table));
    const part = builder.matmul(dLogits, chunk.hidden, { transA: true });
    dTable = dTable ? builder.add(part, dTable) : part;
  }
  return {
    loss: builder.reduceMean(join(builder, losses), [0]),
    dHidden: join(builder, dHidden),
    dTable: dTable!,
  };
}
