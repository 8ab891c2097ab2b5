import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { gunzipSync } from 'node:zlib';
import fc from 'fast-check';
import { sha256Hex } from '../std/hash.ts';
import { type BpeVocabulary, endOfText, tokenizerJsonOf, trainBpe, WordCounter } from './bpe-trainer.ts';
import { byteCharacters } from './byte-level.ts';

/** The oracle: counts every pair anew for every merge. */
function trainSlowly(counts: ReadonlyMap<string, number>, vocabularySize: number): BpeVocabulary {
  const tokens = [endOfText, ...byteCharacters.toSorted()];
  let words = [...counts].map(([word, count]) => ({
    ids: [...Buffer.from(word)].map((byte) => tokens.indexOf(byteCharacters[byte]!, 1)),
    count,
  }));
  const merges: [number, number][] = [];
  while (tokens.length < vocabularySize) {
    const pairs = new Map<string, { pair: [number, number]; count: number }>();
    for (const { ids, count } of words) {
      for (let i = 1; i < ids.length; i++) {
        const pair: [number, number] = [ids[i - 1]!, ids[i]!];
        pairs.set(pair.join(), { pair, count: (pairs.get(pair.join())?.count ?? 0) + count });
      }
    }
    const [best] = [...pairs.values()].sort(
      (a, b) => b.count - a.count || a.pair[0] - b.pair[0] || a.pair[1] - b.pair[1],
    );
    if (!best) break;
    const [left, right] = best.pair;
    const merged = tokens.push(tokens[left]! + tokens[right]!) - 1;
    merges.push([left, right]);
    words = words.map(({ ids, count }) => {
      const out: number[] = [];
      for (let i = 0; i < ids.length; i++) {
        if (ids[i] === left && ids[i + 1] === right) {
          out.push(merged);
          i++;
        } else out.push(ids[i]!);
      }
      return { ids: out, count };
    });
  }
  return { tokens, merges };
}

test('gives the vocabulary of the slow oracle', () => {
  const word = fc.string({ unit: fc.constantFrom('a', 'b', 'c', 'é'), minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(fc.dictionary(word, fc.integer({ min: 1, max: 6 }), { maxKeys: 12 }), (counts) => {
      const map = new Map(Object.entries(counts));
      assert.deepEqual(trainBpe(map, 290), trainSlowly(map, 290));
    }),
    { numRuns: 150 },
  );
});

test('overlapping pairs: aaaa… is merged from the left', () => {
  const counts = new Map([['aaaaaaa', 3]]);
  assert.deepEqual(trainBpe(counts, 270), trainSlowly(counts, 270));
});

// From Hugging Face's tokenizers 0.23.2 (Rust), BpeTrainer with the ByteLevel alphabet on the same documents: its
// vocabulary and merges, written in our file's form, have these digests.
const huggingFaceDigests = [
  [2048, '7ce21be4671076264529282eca94753be9c6121f3d8cc2ff4f48ac40f02b31ed'],
  [4096, '7c50e342f9622d832b74b1c99a01bab16c06b26d2d0870403e03d6d80bf73ecf'],
] as const;

test('gives the vocabularies of Hugging Face BpeTrainer on the shipped corpus', () => {
  const corpus = gunzipSync(readFileSync(new URL('../../data/state-of-the-union.jsonl.gz', import.meta.url)));
  const counter = new WordCounter();
  for (const line of corpus.toString().trim().split('\n'))
    counter.add((JSON.parse(line) as { text: string }).text);
  for (const [size, digest] of huggingFaceDigests) {
    const vocabulary = trainBpe(counter.counts, size);
    assert.equal(vocabulary.tokens.length, size);
    assert.equal(sha256Hex(tokenizerJsonOf(vocabulary)), digest);
  }
});

test('a corpus without enough pairs gives a smaller vocabulary', () => {
  assert.equal(trainBpe(new Map([['ab', 1]]), 2048).tokens.length, 258);
  assert.equal(trainBpe(new Map(), 2048).tokens.length, 257);
});

test('refuses sizes that cannot hold the alphabet or are no sizes', () => {
  for (const size of [0, 256, 1.5, Number.NaN, 2 ** 21]) {
    assert.throws(() => trainBpe(new Map(), size), { code: 'bad-vocabulary-size' });
  }
});

test('the word counter forgets rare words past its bound, and skips monsters', () => {
  const counter = new WordCounter(10);
  for (let i = 0; i < 20; i++) counter.add(`common w${'x'.repeat(i)}`);
  counter.add('y'.repeat(1000));
  assert.ok(counter.counts.size <= 10);
  assert.equal(counter.counts.get('common'), 20);
  assert.equal(counter.counts.has('y'.repeat(1000)), false);
});
