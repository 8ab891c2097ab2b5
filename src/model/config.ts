/**
 * The dimensions of a NeuroLLM (a Llama-family decoder), the four presets, and the exact parameter count. It knows
 * nothing of graphs, files or Hugging Face's names for these numbers.
 */
import { z } from 'zod';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';

export interface ModelConfig {
  readonly layers: number;
  /** Width of the residual stream. */
  readonly width: number;
  /** Query heads. */
  readonly heads: number;
  /** Key and value heads; divides `heads`. */
  readonly kvHeads: number;
  /** Elements per head; even, and heads × headWidth need not equal `width`. */
  readonly headWidth: number;
  /** Hidden width of the SwiGLU feed-forward. */
  readonly ffn: number;
  readonly vocabulary: number;
  /** Longest sequence in tokens. */
  readonly context: number;
  readonly ropeTheta: number;
  readonly normEpsilon: number;
  /** Whether the LM head reads the embedding table; only for models held by one stage. */
  readonly tiedEmbeddings: boolean;
}

const dimension = (most: number) => z.number().int().min(1).max(most);

/** The bounds admit every plan of the architecture planner and keep each element count exact in a double. */
const configSchema = z
  .strictObject({
    layers: dimension(1024),
    width: dimension(65_536),
    heads: dimension(1024),
    kvHeads: dimension(1024),
    headWidth: dimension(1024),
    ffn: dimension(1_048_576),
    vocabulary: dimension(4_194_304),
    context: dimension(1_048_576),
    ropeTheta: z.number().min(1).max(1e12),
    normEpsilon: z.number().min(1e-12).max(1),
    tiedEmbeddings: z.boolean(),
  })
  .refine((config) => config.heads % config.kvHeads === 0, 'heads must be a multiple of kvHeads')
  .refine((config) => config.headWidth % 2 === 0, 'headWidth must be even');

/** Validates untrusted JSON; the only code is `bad-model-config`, and the detail names the offending field. */
export function parseModelConfig(json: unknown): Outcome<ModelConfig> {
  const parsed = configSchema.safeParse(json);
  if (parsed.success) return accept(parsed.data);
  const issue = parsed.error.issues[0];
  const field = issue && issue.path.length > 0 ? `${issue.path.join('.')}: ` : '';
  return reject('bad-model-config', `${field}${issue?.message ?? 'not a model configuration'}`);
}

function preset(
  layers: number,
  width: number,
  [heads, kvHeads]: readonly [number, number],
  ffn: number,
  vocabulary: number,
  context: number,
): ModelConfig {
  const headWidth = width / heads;
  const shared = { ropeTheta: 10_000, normEpsilon: 1e-5, tiedEmbeddings: false };
  return { layers, width, heads, kvHeads, headWidth, ffn, vocabulary, context, ...shared };
}

export const presets = {
  tiny: preset(4, 128, [4, 2], 384, 2048, 128),
  small: preset(8, 256, [8, 4], 768, 4096, 256),
  medium: preset(8, 512, [8, 4], 1408, 8192, 512),
  reference: preset(16, 1024, [16, 4], 2816, 32_768, 1024),
} as const satisfies Record<string, ModelConfig>;

export type PresetName = keyof typeof presets;

/** The preset of that name; throws CodedError `unknown-preset`, which lists them. */
export function presetConfig(name: string): ModelConfig {
  if (Object.hasOwn(presets, name)) return presets[name as PresetName];
  const known = Object.keys(presets).join(', ');
  throw new CodedError('unknown-preset', `unknown preset "${name}"; choose one of: ${known}`);
}

/** Elements of one layer's matrices and norms. */
export function layerParameterCount(config: ModelConfig): number {
  const { width, heads, kvHeads, headWidth, ffn } = config;
  const attention = 2 * width * heads * headWidth + 2 * width * kvHeads * headWidth;
  return attention + 3 * width * ffn + 2 * width;
}

/** Every trainable element of the model; tied embeddings count once. */
export function parameterCount(config: ModelConfig): number {
  const tables = config.tiedEmbeddings ? 1 : 2;
  return (
    config.layers * layerParameterCount(config) + tables * config.vocabulary * config.width + config.width
  );
}
