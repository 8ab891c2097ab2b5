/**
 * Trains a byte-level BPE vocabulary from word counts, and writes it as a tokenizer.json that Hugging Face's
 * tokenizers load. It does not know where the text comes from.
 * Source: Sennrich, Haddow and Birch (2016); ties as in Hugging Face's BpeTrainer (the smaller pair of ids).
 */
import { assert } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { byteCharacters, wordsOf } from './byte-level.ts';

/** Stands between documents. */
export const endOfText = '<|endoftext|>';

export interface BpeVocabulary {
  /** Tokens by id, in the byte-level alphabet; id 0 is `<|endoftext|>`. */
  readonly tokens: readonly string[];
  /** Pairs of ids, most frequent first. */
  readonly merges: readonly (readonly [number, number])[];
}

const specialTokens = 1;
const vocabularySizeMin = specialTokens + 256;
const vocabularySizeMax = 1 << 20;
const wordCharactersMax = 256;

/** Counts words over many texts, within a bound: past it, the words seen once are forgotten. */
export class WordCounter {
  readonly counts = new Map<string, number>();
  readonly #wordsMax: number;

  constructor(wordsMax = 2_000_000) {
    this.#wordsMax = wordsMax;
  }

  add(text: string): void {
    for (const word of wordsOf(text)) {
      if (word.length > wordCharactersMax) continue;
      this.counts.set(word, (this.counts.get(word) ?? 0) + 1);
    }
    for (let least = 1; this.counts.size > this.#wordsMax; least++) {
      for (const [word, count] of this.counts) if (count <= least) this.counts.delete(word);
    }
  }
}

/** A pair of ids as one exact number, in the order of (left, right). */
function pairKey(left: number, right: number): number {
  return left * vocabularySizeMax + right;
}

interface Candidate {
  readonly key: number;
  readonly count: number;
}

/** Merges the most frequent pair until the vocabulary is full or no pair is left; may end with fewer tokens. */
export function trainBpe(counts: ReadonlyMap<string, number>, vocabularySize: number): BpeVocabulary {
  if (
    !Number.isInteger(vocabularySize) ||
    vocabularySize < vocabularySizeMin ||
    vocabularySize > vocabularySizeMax
  ) {
    throw new CodedError(
      'bad-vocabulary-size',
      `a vocabulary has ${vocabularySizeMin} to ${vocabularySizeMax} tokens, not ${vocabularySize}`,
    );
  }
  const tokens = [endOfText, ...byteCharacters.toSorted()];
  const words = initialWords(counts, tokens);
  const pairs = new PairCounts(words);
  const merges: [number, number][] = [];
  while (tokens.length < vocabularySize) {
    const best = pairs.takeMostFrequent();
    if (best === undefined) break;
    const left = Math.floor(best / vocabularySizeMax);
    const right = best % vocabularySizeMax;
    const merged = tokens.push(tokens[left]! + tokens[right]!) - 1;
    merges.push([left, right]);
    pairs.merge(left, right, merged);
  }
  return { tokens, merges };
}

interface CountedWord {
  /** Shrinks as pairs are merged. */
  readonly ids: number[];
  readonly count: number;
}

function initialWords(counts: ReadonlyMap<string, number>, tokens: readonly string[]): CountedWord[] {
  const idOfToken = new Map(tokens.map((token, id) => [token, id]));
  const idOfByte = byteCharacters.map((character) => idOfToken.get(character)!);
  const words: CountedWord[] = [];
  for (const [word, count] of counts)
    words.push({ ids: Array.from(utf8(word), (byte) => idOfByte[byte]!), count });
  return words;
}

/** How often each pair of neighbours occurs, kept up to date while pairs are merged. */
class PairCounts {
  readonly #words: readonly CountedWord[];
  readonly #counts = new Map<number, number>();
  /** Words in which a pair occurs, or once occurred. */
  readonly #places = new Map<number, Set<number>>();
  /** Counts here may be stale; the true one is looked up when a candidate comes out. */
  readonly #heap: Candidate[] = [];

  constructor(words: readonly CountedWord[]) {
    this.#words = words;
    for (const [place, { ids, count }] of words.entries()) {
      for (let i = 1; i < ids.length; i++) this.#change(pairKey(ids[i - 1]!, ids[i]!), count, place);
    }
    for (const [key, count] of this.#counts) this.#push({ key, count });
  }

  #change(key: number, by: number, place: number): void {
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + by);
    if (by < 0) return;
    const places = this.#places.get(key);
    if (places) places.add(place);
    else this.#places.set(key, new Set([place]));
  }

  takeMostFrequent(): number | undefined {
    for (;;) {
      const candidate = this.#pop();
      if (!candidate) return undefined;
      const count = this.#counts.get(candidate.key) ?? 0;
      assert(count <= candidate.count, 'counts of a known pair only fall');
      if (count === candidate.count) return candidate.key;
      if (count > 0) this.#push({ key: candidate.key, count });
    }
  }

  merge(left: number, right: number, merged: number): void {
    const key = pairKey(left, right);
    const created = new Set<number>();
    for (const place of this.#places.get(key) ?? []) this.#mergeWord(place, left, right, merged, created);
    this.#counts.delete(key);
    this.#places.delete(key);
    created.delete(key);
    for (const pair of created) {
      const count = this.#counts.get(pair) ?? 0;
      if (count > 0) this.#push({ key: pair, count });
    }
  }

  #mergeWord(place: number, left: number, right: number, merged: number, created: Set<number>): void {
    const { ids, count } = this.#words[place]!;
    const add = (a: number, b: number) => {
      this.#change(pairKey(a, b), count, place);
      created.add(pairKey(a, b));
    };
    let written = 0;
    for (let read = 0; read < ids.length; ) {
      if (ids[read] !== left || ids[read + 1] !== right) {
        ids[written++] = ids[read++]!;
        continue;
      }
      const before = written > 0 ? ids[written - 1] : undefined;
      const after = ids[read + 2];
      if (before !== undefined) {
        this.#change(pairKey(before, left), -count, place);
        add(before, merged);
      }
      if (after !== undefined) {
        this.#change(pairKey(right, after), -count, place);
        add(merged, after);
      }
      ids[written++] = merged;
      read += 2;
    }
    ids.length = written;
  }

  #push(candidate: Candidate): void {
    const heap = this.#heap;
    let child = heap.push(candidate) - 1;
    while (child > 0) {
      const parent = (child - 1) >> 1;
      if (!precedes(heap[child]!, heap[parent]!)) break;
      swap(heap, child, parent);
      child = parent;
    }
  }

  #pop(): Candidate | undefined {
    const heap = this.#heap;
    const top = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || !last) return top;
    heap[0] = last;
    for (let parent = 0; ; ) {
      let best = parent;
      for (const child of [2 * parent + 1, 2 * parent + 2]) {
        if (child < heap.length && precedes(heap[child]!, heap[best]!)) best = child;
      }
      if (best === parent) return top;
      swap(heap, parent, best);
      parent = best;
    }
  }
}

function precedes(a: Candidate, b: Candidate): boolean {
  return a.count !== b.count ? a.count > b.count : a.key < b.key;
}

function swap(heap: Candidate[], a: number, b: number): void {
  const swapped = heap[a]!;
  heap[a] = heap[b]!;
  heap[b] = swapped;
}

/** The bytes of tokenizer.json: the same vocabulary always gives the same bytes. */
export function tokenizerJsonOf({ tokens, merges }: BpeVocabulary): Uint8Array {
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true };
  const placeholder = 'vocabulary';
  const file = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [
      {
        id: 0,
        content: endOfText,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      },
    ],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: placeholder,
      merges: merges.map(([left, right]) => `${tokens[left]} ${tokens[right]}`),
    },
  };
  // Written by hand in order of ids: a JavaScript object would list the tokens that look like integers first.
  const vocabulary = tokens.map((token, id) => `${JSON.stringify(token)}:${id}`).join(',');
  return utf8(`${JSON.stringify(file).replace(`"${placeholder}"`, () => `{${vocabulary}}`)}\n`);
}
