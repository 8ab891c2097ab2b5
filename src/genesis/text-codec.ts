/**
 * Text to tokens and back for any Hugging Face tokenizer.json: our own encoder where it does exactly the same, the
 * library's for the rest. Only for reading models that others trained; datasets are always made with our own.
 */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { CodedError } from '../std/outcome.ts';
import { loadTokenizer, type StreamDecoder, type Tokenizer } from './tokenizer.ts';

export type TextCodec = Pick<Tokenizer, 'vocabularySize' | 'encode' | 'decoder'>;

/** Throws CodedError `tokenizer-invalid` or `tokenizer-unsupported`, in the words of our own loader. */
export function loadTextCodec(json: Uint8Array): TextCodec {
  try {
    return loadTokenizer(json);
  } catch (error) {
    if (!(error instanceof CodedError)) throw error;
    const foreign = loadForeign(json);
    if (foreign) return foreign;
    throw error;
  }
}

/** Undefined when the library cannot use it either: it says so in many ways, none of them coded. */
function loadForeign(json: Uint8Array): TextCodec | undefined {
  try {
    const parsed = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(json));
    if (!hasSoundMerges(parsed.model)) return undefined;
    const library = new LibraryTokenizer(parsed, {});
    const ids = [...library.get_vocab(true).values()];
    if (ids.length === 0 || !ids.every((id) => Number.isSafeInteger(id) && id >= 0)) return undefined;
    const probe: readonly number[] = library.encode('a').ids;
    if (probe.length === 0 || !probe.every((id) => ids.includes(id))) return undefined;
    return {
      vocabularySize: ids.reduce((most, id) => Math.max(most, id), 0) + 1,
      encode: (text) => library.encode(text, { add_special_tokens: false }).ids,
      decoder: () => streamDecoder(library),
    };
  } catch {
    return undefined;
  }
}

/** Whether every merge makes a token out of two: the library reads past what is damaged, and encodes another way. */
function hasSoundMerges(model: {
  readonly vocab?: Readonly<Record<string, unknown>>;
  readonly merges?: readonly (string | readonly string[])[];
}): boolean {
  const { vocab = {}, merges = [] } = model;
  return merges.every((merge) => {
    const parts = typeof merge === 'string' ? merge.split(' ') : merge;
    return parts.length === 2 && [...parts, parts.join('')].every((token) => Object.hasOwn(vocab, token));
  });
}

/** The library decodes whole lists only: what follows the text that has been given is new. */
function streamDecoder(library: LibraryTokenizer): StreamDecoder {
  const ids: number[] = [];
  let given = '';
  const rest = (complete: boolean) => {
    const text = ids.length === 0 ? '' : library.decode(ids, { skip_special_tokens: true });
    // An unfinished character; or a decoder that changes its mind about text already given.
    if (!complete && (text.endsWith('\ufffd') || !text.startsWith(given))) return '';
    const more = text.slice(given.length);
    given = text;
    return more;
  };
  return {
    push: (id) => {
      ids.push(id);
      return rest(false);
    },
    end: () => rest(true),
  };
}
