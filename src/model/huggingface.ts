/**
 * The model as Hugging Face stores a `LlamaForCausalLM`: config.json both ways, export to safetensors, and import with
 * every tensor checked. Parameter names are already theirs. It works on bytes and knows no file system.
 */
import { bytesOf, utf8 } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type ModelConfig, parseModelConfig } from './config.ts';
import { headName, parameterList, wholeModel } from './parameters.ts';
import { decodeF32, readSafetensors, writeSafetensors } from './safetensors.ts';

export interface SpecialTokens {
  readonly bosTokenId?: number;
  readonly eosTokenId?: number;
}

/** The fields of config.json that Transformers and llama.cpp's converter read. */
export function toHuggingFaceConfig(
  config: ModelConfig,
  special: SpecialTokens = {},
): Record<string, unknown> {
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: config.vocabulary,
    hidden_size: config.width,
    intermediate_size: config.ffn,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headWidth,
    max_position_embeddings: config.context,
    rms_norm_eps: config.normEpsilon,
    rope_theta: config.ropeTheta,
    rope_scaling: null,
    tie_word_embeddings: config.tiedEmbeddings,
    hidden_act: 'silu',
    attention_bias: false,
    mlp_bias: false,
    attention_dropout: 0,
    initializer_range: 0.02,
    pretraining_tp: 1,
    use_cache: true,
    torch_dtype: 'float32',
    bos_token_id: special.bosTokenId ?? null,
    eos_token_id: special.eosTokenId ?? null,
  };
}

/** An untrusted value, short enough for an error line. */
function describe(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 40) : typeof value;
}

/** The first feature of a config.json that our graphs do not compute, or undefined. */
function unsupported(json: Readonly<Record<string, unknown>>): string | undefined {
  if (json.model_type !== 'llama') return `model_type ${describe(json.model_type)}`;
  if (json.hidden_act !== undefined && json.hidden_act !== 'silu')
    return `hidden_act ${describe(json.hidden_act)}`;
  if (json.attention_bias === true) return 'attention_bias';
  if (json.mlp_bias === true) return 'mlp_bias';
  for (const field of ['rope_scaling', 'rope_parameters']) {
    const rope = json[field];
    if (rope === undefined || rope === null) continue;
    if (typeof rope !== 'object') return field;
    const { rope_type: type, type: formerType } = rope as Record<string, unknown>;
    if ((type ?? formerType ?? 'default') !== 'default')
      return `${field} of type ${describe(type ?? formerType)}`;
  }
  return undefined;
}

/** Reads an untrusted config.json. Codes: `unsupported-model`, `bad-model-config`. */
export function fromHuggingFaceConfig(json: unknown): Outcome<ModelConfig> {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    return reject('bad-model-config', 'not a JSON object');
  }
  const fields = json as Record<string, unknown>;
  const reason = unsupported(fields);
  if (reason) return reject('unsupported-model', reason);
  const rope = (fields.rope_parameters ?? {}) as Record<string, unknown>;
  const heads = fields.num_attention_heads;
  return parseModelConfig({
    layers: fields.num_hidden_layers,
    width: fields.hidden_size,
    heads,
    kvHeads: fields.num_key_value_heads ?? heads,
    headWidth: fields.head_dim ?? Number(fields.hidden_size) / Number(heads),
    ffn: fields.intermediate_size,
    vocabulary: fields.vocab_size,
    context: fields.max_position_embeddings,
    ropeTheta: fields.rope_theta ?? rope.rope_theta ?? 10_000,
    normEpsilon: fields.rms_norm_eps ?? 1e-6,
    tiedEmbeddings: fields.tie_word_embeddings ?? false,
  });
}

export interface ExportedModel {
  readonly 'config.json': Uint8Array;
  readonly 'model.safetensors': Uint8Array;
}

/** Of all tensors' bytes in the order of the file: the format itself has no checksum, and a flipped bit is a weight, too. */
const digestKey = 'neuroshard.sha256';

/** The files of a model directory, less its tokenizer. `parameters` holds every parameter of the whole model. */
export function exportModel(
  config: ModelConfig,
  parameters: (name: string) => Float32Array,
  special: SpecialTokens = {},
): ExportedModel {
  const sources = parameterList(config, wholeModel(config)).map(({ name, shape }) => ({
    name,
    shape,
    data: parameters(name),
  }));
  return {
    'config.json': utf8(`${JSON.stringify(toHuggingFaceConfig(config, special), null, 2)}\n`),
    'model.safetensors': writeSafetensors(sources, {
      format: 'pt',
      [digestKey]: sha256Hex(...sources.map(({ data }) => bytesOf(data))),
    }),
  };
}

/** Tensors that Llama checkpoints carry beside their parameters. */
function isDerived(name: string, config: ModelConfig): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || (config.tiedEmbeddings && name === headName);
}

function allFinite(values: Float32Array): boolean {
  for (let i = 0; i < values.length; i++) if (!Number.isFinite(values[i])) return false;
  return true;
}

/**
 * Every parameter of the whole model as f32, from untrusted safetensors files (one, or the parts of a sharded
 * checkpoint). Codes: those of `readSafetensors`, `weights-damaged`, `missing-tensor`, `unexpected-tensor`, `duplicate-tensor`,
 * `wrong-shape`, `not-finite`.
 */
export function importParameters(
  config: ModelConfig,
  ...files: readonly Uint8Array[]
): Outcome<ReadonlyMap<string, Float32Array<ArrayBuffer>>> {
  const specs = parameterList(config, wholeModel(config));
  const wanted = new Map(specs.map((spec) => [spec.name, spec]));
  const found = new Map<string, Float32Array<ArrayBuffer>>();
  for (const bytes of files) {
    const file = readSafetensors(bytes);
    if (!file.ok) return file;
    for (const { name, dtype, shape, bytes: data } of file.value.tensors.values()) {
      if (isDerived(name, config)) continue;
      const spec = wanted.get(name);
      if (!spec) return reject('unexpected-tensor', name);
      if (found.has(name)) return reject('duplicate-tensor', name);
      if (shape.join() !== spec.shape.join()) {
        return reject('wrong-shape', `${name} is [${shape}], expected [${spec.shape}]`);
      }
      const values = decodeF32(dtype, data);
      if (!values.ok) return reject(values.code, `${name}: ${values.detail}`);
      if (!allFinite(values.value)) return reject('not-finite', name);
      found.set(name, values.value);
    }
    const digest = file.value.metadata.get(digestKey);
    const tensors = [...file.value.tensors.values()].map((tensor) => tensor.bytes);
    if (digest !== undefined && digest !== sha256Hex(...tensors)) return reject('weights-damaged');
  }
  for (const { name } of specs) if (!found.has(name)) return reject('missing-tensor', name);
  return accept(found);
}
