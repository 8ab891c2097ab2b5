/**
 * A tokenizer loaded from tokenizer.json: text to token ids and back, by byte-level BPE. The file is checked before
 * use, and text never becomes a special token: only our own code writes those. It knows nothing of models.
 */

import { utf8 } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { type MergeTable, mergeTable, mergeWord } from './bpe-merge.ts';
import { endOfText } from './bpe-trainer.ts';
import { byteCharacters, bytesOfToken, wordsOf } from './byte-level.ts';

export interface Tokenizer {
  readonly vocabularySize: number;
  /** Id of `<|endoftext|>`, which stands between documents. */
  readonly endOfText: number;
  /** Ids of a text; no special tokens are added, and none are recognised in the text. */
  encode(text: string): number[];
  /** Text of ids. Special tokens and unknown ids give nothing; invalid UTF-8 gives U+FFFD. */
  decode(ids: Iterable<number>): string;
  /** Text as tokens arrive: bytes of an unfinished character are held back until it is complete. */
  decoder(): StreamDecoder;
  /** The bytes a token stands for; empty for special tokens and unknown ids. */
  tokenBytes(id: number): Uint8Array;
}

export interface StreamDecoder {
  /** The text that this token completes, possibly ''. */
  push(id: number): string;
  /** What is left at the end: '' or U+FFFD for an unfinished character. */
  end(): string;
}

export const tokenizerBytesMax = 64 * 1024 * 1024;
const cachedWordsMax = 200_000;
const cachedWordCharactersMax = 64;

/** Throws CodedError `tokenizer-invalid` (the line says why) or `tokenizer-unsupported`. */
export function loadTokenizer(json: Uint8Array): Tokenizer {
  const { tokens, specials, merges, idOfByte } = readTokenizerFile(json);
  const cache = new Map<string, readonly number[]>();
  const empty = new Uint8Array();
  const tokenBytes = (id: number) => (specials.has(id) ? empty : (tokens[id] ?? empty));

  const encodeWord = (word: string): readonly number[] => {
    const cached = cache.get(word);
    if (cached) return cached;
    const ids = mergeWord(
      Array.from(utf8(word), (byte) => idOfByte[byte]!),
      merges,
    );
    if (word.length <= cachedWordCharactersMax) {
      if (cache.size >= cachedWordsMax) cache.clear();
      cache.set(word, ids);
    }
    return ids;
  };

  const decoder = (): StreamDecoder => {
    const utf8Decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    return {
      push: (id) => utf8Decoder.decode(tokenBytes(id), { stream: true }),
      end: () => utf8Decoder.decode(),
    };
  };

  return {
    vocabularySize: tokens.length,
    endOfText: [...specials].find(([, content]) => content === endOfText)![0],
    encode: (text) => {
      const ids: number[] = [];
      for (const word of wordsOf(text)) for (const id of encodeWord(word)) ids.push(id);
      return ids;
    },
    decode: (ids) => {
      const stream = decoder();
      let text = '';
      for (const id of ids) text += stream.push(id);
      return text + stream.end();
    },
    decoder,
    tokenBytes,
  };
}

interface TokenizerFile {
  /** Bytes by id. */
  readonly tokens: readonly Uint8Array[];
  /** Content by id. */
  readonly specials: ReadonlyMap<number, string>;
  readonly merges: MergeTable;
  readonly idOfByte: readonly number[];
}

function invalid(why: string, cause?: unknown): CodedError {
  return new CodedError(
    'tokenizer-invalid',
    `tokenizer.json is not valid: ${why}`,
    cause ? { cause } : undefined,
  );
}

function readTokenizerFile(json: Uint8Array): TokenizerFile {
  if (json.length > tokenizerBytesMax) throw invalid(`${json.length} bytes, at most ${tokenizerBytesMax}`);
  let file: unknown;
  try {
    file = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
  } catch (error) {
    throw invalid('not JSON', error);
  }
  if (!isRecord(file) || !isRecord(file.model)) throw invalid('no model');
  requireByteLevelBpe(file, file.model);
  const vocabulary = file.model.vocab;
  if (!isRecord(vocabulary)) throw invalid('no vocabulary');
  const specials = readSpecials(file.added_tokens);
  const ids = new Map(Object.entries(vocabulary) as [string, number][]);
  for (const [id, content] of specials) ids.set(content, id);
  const tokens = tokensById(ids, specials);
  const idOfByte = byteCharacters.map((character) => {
    const id = ids.get(character);
    if (id === undefined) throw invalid(`the vocabulary has no token for the byte ${character}`);
    return id;
  });
  return {
    tokens,
    specials,
    merges: mergeTable(readMerges(file.model.merges, ids), tokens.length),
    idOfByte,
  };
}

/** Only what this encoder does exactly as Hugging Face's tokenizers do. */
function requireByteLevelBpe(file: Record<string, unknown>, model: Record<string, unknown>): void {
  const unsupported = (what: string) => new CodedError('tokenizer-unsupported', `tokenizer.json has ${what}`);
  const splitter = file.pre_tokenizer;
  if (model.type !== 'BPE') throw unsupported('a model other than BPE');
  if (file.normalizer) throw unsupported('a normalizer');
  if (!isRecord(splitter) || splitter.type !== 'ByteLevel')
    throw unsupported('a pre-tokenizer other than ByteLevel');
  if (splitter.add_prefix_space !== false || splitter.use_regex === false)
    throw unsupported('unusual ByteLevel options');
  for (const option of ['dropout', 'continuing_subword_prefix', 'end_of_word_suffix', 'ignore_merges']) {
    if (model[option]) throw unsupported(option);
  }
}

function readSpecials(value: unknown): Map<number, string> {
  const specials = new Map<number, string>();
  if (!Array.isArray(value)) throw invalid('no added tokens');
  for (const item of value) {
    if (!isRecord(item) || !Number.isSafeInteger(item.id) || typeof item.content !== 'string')
      throw invalid('added tokens');
    specials.set(item.id as number, item.content);
  }
  if (![...specials.values()].includes(endOfText)) throw invalid(`no token ${endOfText}`);
  return specials;
}

function tokensById(ids: ReadonlyMap<string, number>, specials: ReadonlyMap<number, string>): Uint8Array[] {
  const tokens = new Array<Uint8Array | undefined>(ids.size).fill(undefined);
  for (const [token, id] of ids) {
    if (!Number.isSafeInteger(id) || id < 0 || id >= tokens.length)
      throw invalid(`id ${id} of ${JSON.stringify(token)}`);
    if (tokens[id]) throw invalid(`two tokens have the id ${id}`);
    const bytes = specials.get(id) === token ? utf8(token) : bytesOfToken(token);
    if (!bytes) throw invalid(`${JSON.stringify(token)} is not in the byte-level alphabet`);
    tokens[id] = bytes;
  }
  return tokens as Uint8Array[];
}

/** Merges as ids [left, right, merged], in order of rank; written `"a b"` or `["a", "b"]`. */
function readMerges(value: unknown, ids: ReadonlyMap<string, number>): [number, number, number][] {
  if (!Array.isArray(value)) throw invalid('no merges');
  return value.map((item, rank) => {
    const parts: unknown = typeof item === 'string' ? item.split(' ') : item;
    if (!Array.isArray(parts) || parts.length !== 2) throw invalid(`merge ${rank}`);
    const merged = [parts[0], parts[1], `${parts[0]}${parts[1]}`].map((token) => ids.get(token));
    if (merged.includes(undefined)) throw invalid(`merge ${rank} has a token that is not in the vocabulary`);
    return merged as [number, number, number];
  });
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
