/**
 * A model as a folder of files that Transformers and llama.cpp's converter read: config.json, model.safetensors (or
 * its numbered parts with an index) and tokenizer.json. Nothing in it is trusted. Knows nothing of training.
 */
import { access } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { endOfText } from '../../genesis/bpe-trainer.ts';
import { loadTextCodec, type TextCodec } from '../../genesis/text-codec.ts';
import { loadTokenizer, tokenizerBytesMax } from '../../genesis/tokenizer.ts';
import type { ModelConfig } from '../../model/config.ts';
import { exportModel, fromHuggingFaceConfig, importParameters } from '../../model/huggingface.ts';
import { utf8 } from '../../std/bytes.ts';
import { CodedError, type Outcome } from '../../std/outcome.ts';
import { createFolder, readFileBounded, writeFileAtomic } from './files.ts';

export interface ModelFolder {
  readonly config: ModelConfig;
  /** Every parameter of the whole model by Hugging Face name. */
  readonly parameters: ReadonlyMap<string, Float32Array>;
  readonly tokenizer: TextCodec;
  /** What a text begins with; undefined where the model wants nothing. */
  readonly beginToken: number | undefined;
  /** Tokens that end a text. */
  readonly endTokens: readonly number[];
}

const configFile = 'config.json';
const weightsFile = 'model.safetensors';
const weightsIndexFile = 'model.safetensors.index.json';
const tokenizerFile = 'tokenizer.json';
const tokenizerConfigFile = 'tokenizer_config.json';

const configBytesMax = 1024 * 1024;
const weightsBytesMax = 64 * 1024 ** 3;
const partsMax = 1000;

/**
 * Reads and checks the whole folder. Throws CodedError: `not-found`, `bad-model-config`, `unsupported-model`,
 * `tokenizer-invalid`, `tokenizer-unsupported`, `wrong-vocabulary`, and the codes of `importParameters`.
 */
export async function readModelFolder(folder: string): Promise<ModelFolder> {
  const json = await readJson(join(folder, configFile), 'bad-model-config');
  const config = unwrap(fromHuggingFaceConfig(json), join(folder, configFile));
  const tokenizer = await readTokenizer(join(folder, tokenizerFile));
  requireVocabulary(config, tokenizer.vocabularySize, folder);
  const files: Uint8Array[] = [];
  for (const path of await weightPaths(folder)) files.push(await readFileBounded(path, weightsBytesMax));
  const parameters = unwrap(importParameters(config, ...files), join(folder, weightsFile));
  const { bos_token_id: begin, eos_token_id: end } = json as Record<string, unknown>;
  const isToken = (id: unknown): id is number =>
    Number.isSafeInteger(id) && (id as number) >= 0 && (id as number) < config.vocabulary;
  return {
    config,
    parameters,
    tokenizer,
    beginToken: isToken(begin) ? begin : undefined,
    endTokens: [end].flat().filter(isToken),
  };
}

/** The loader knows no path: its errors say `tokenizer.json`, ours say which. */
async function readTokenizer(path: string): Promise<TextCodec> {
  const bytes = await readFileBounded(path, tokenizerBytesMax);
  try {
    return loadTextCodec(bytes);
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    throw new CodedError(error.code, error.message.replace(/^tokenizer\.json/, path), { cause: error });
  }
}

/** `wrong-vocabulary` when the tokenizer has tokens that the model has not. */
function requireVocabulary(config: ModelConfig, tokens: number, where: string): void {
  if (tokens <= config.vocabulary) return;
  const detail = `its tokenizer has ${tokens} tokens, the model ${config.vocabulary}`;
  throw new CodedError('wrong-vocabulary', `${where}: ${detail}`);
}

function unwrap<T>(outcome: Outcome<T>, where: string): T {
  if (outcome.ok) return outcome.value;
  throw new CodedError(outcome.code, `${where}: ${outcome.code}${outcome.detail && `, ${outcome.detail}`}`);
}

async function readJson(path: string, code: string): Promise<unknown> {
  const bytes = await readFileBounded(path, configBytesMax);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw new CodedError(code, `${path}: not JSON`, { cause: error });
  }
}

/** One file, or the parts that an index names; parts lie beside it, wherever their names may point. */
async function weightPaths(folder: string): Promise<string[]> {
  const whole = join(folder, weightsFile);
  if ((await exists(whole)) || !(await exists(join(folder, weightsIndexFile)))) return [whole];
  const index = await readJson(join(folder, weightsIndexFile), 'bad-weights-index');
  const map = (index as { weight_map?: unknown } | null)?.weight_map;
  const names = new Set(typeof map === 'object' && map !== null ? Object.values(map) : []);
  const isName = (name: unknown): name is string => typeof name === 'string' && basename(name) === name;
  const parts = [...names].filter(isName);
  if (parts.length === 0 || parts.length !== names.size || parts.length > partsMax)
    throw new CodedError('bad-weights-index', `${join(folder, weightsIndexFile)} names no files beside it`);
  return parts.sort().map((name) => join(folder, name));
}

export interface ModelFiles {
  readonly config: ModelConfig;
  readonly parameters: (name: string) => Float32Array;
  /** The bytes of tokenizer.json. */
  readonly tokenizerJson: Uint8Array;
}

/** Refuses a folder that holds a model already (`already-exists`); creates it, so that a bad place shows early. */
export async function prepareModelFolder(
  folder: string,
  { force }: { readonly force: boolean },
): Promise<void> {
  await createFolder(folder);
  if (force) return;
  for (const name of [weightsFile, weightsIndexFile, configFile, tokenizerFile]) {
    if (!(await exists(join(folder, name)))) continue;
    throw new CodedError(
      'already-exists',
      `${join(folder, name)} is already there: choose another folder, or replace it with --force`,
    );
  }
}

function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}

/** Writes each file whole or not at all; the weights come last, so a folder with weights is complete. */
export async function writeModelFolder(folder: string, files: ModelFiles): Promise<void> {
  const { config, parameters, tokenizerJson } = files;
  const end = loadTokenizer(tokenizerJson).endOfText;
  const exported = exportModel(config, parameters, { bosTokenId: end, eosTokenId: end });
  await createFolder(folder);
  await writeFileAtomic(join(folder, tokenizerFile), tokenizerJson);
  await writeFileAtomic(join(folder, tokenizerConfigFile), tokenizerConfig(config));
  await writeFileAtomic(join(folder, configFile), exported[configFile]);
  await writeFileAtomic(join(folder, weightsFile), exported[weightsFile]);
}

/** Tells Transformers' AutoTokenizer to take tokenizer.json as it is, whatever the model type. */
function tokenizerConfig(config: ModelConfig): Uint8Array {
  const json = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: endOfText,
    eos_token: endOfText,
    model_max_length: config.context,
    clean_up_tokenization_spaces: false,
  };
  return utf8(`${JSON.stringify(json, null, 2)}\n`);
}
