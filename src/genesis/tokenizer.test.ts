import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { utf8 } from '../std/bytes.ts';
import { mergeInPasses, mergeTable, mergeWithHeap } from './bpe-merge.ts';
import { loadTokenizer, tokenizerBytesMax } from './tokenizer.ts';

const json = new Uint8Array(
  readFileSync(new URL('../../data/state-of-the-union/tokenizer.json', import.meta.url)),
);
const tokenizer = loadTokenizer(json);
const library = new HuggingFaceTokenizer(JSON.parse(Buffer.from(json).toString()), {});

const samples = [
  '',
  ' ',
  'Fellow-Citizens of the Senate and House of Representatives:',
  "don't we'll they've I'm it'd 's  'tis",
  'tabs\tand\r\nlines\n\n\n  indented   text  \n',
  'naïve façade, Zürich, Ελλάδα, Москва, 東京, العربية, हिन्दी',
  '👩‍👩‍👧‍👦 🇫🇷 🏳️‍🌈 e\u0301 \u200b\ufeff\u0000\u001f',
  '1234567890 3.14 1,000,000 ½ ² ٣',
  'the'.repeat(400),
  'a'.repeat(3000),
  ' '.repeat(500),
];

test('round trip of every sample, equal to the library', () => {
  for (const text of samples) {
    const ids = tokenizer.encode(text);
    assert.equal(tokenizer.decode(ids), text);
    assert.deepEqual(
      ids,
      library.encode(text, { add_special_tokens: false }).ids,
      JSON.stringify(text.slice(0, 40)),
    );
  }
});

const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 80 }),
  fc.string({ unit: 'grapheme', maxLength: 80 }),
  fc
    .array(fc.constantFrom(...samples, ' the', 'ing ', '\n', 'é', '🙂'), { maxLength: 8 })
    .map((parts) => parts.join('')),
);

test('any well-formed text round-trips and encodes as the library does', () => {
  fc.assert(
    fc.property(anyText, (text) => {
      const ids = tokenizer.encode(text);
      assert.equal(tokenizer.decode(ids), text);
      assert.deepEqual(ids, library.encode(text, { add_special_tokens: false }).ids);
    }),
    { numRuns: 300 },
  );
});

test('any bytes come back through tokens, and a stream gives what a whole gives', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      const idOfByte = new Map<number, number>();
      for (let id = 1; id <= 256; id++) idOfByte.set(tokenizer.tokenBytes(id)[0]!, id);
      const ids = [...bytes].map((byte) => idOfByte.get(byte)!);
      assert.deepEqual([...Buffer.concat(ids.map((id) => tokenizer.tokenBytes(id)))], [...bytes]);
      const expected = new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);
      const stream = tokenizer.decoder();
      assert.equal(ids.map((id) => stream.push(id)).join('') + stream.end(), expected);
      assert.equal(tokenizer.decode(ids), expected);
    }),
  );
});

test('a stream never shows half a character', () => {
  const text = '東京 🙂 é';
  const stream = tokenizer.decoder();
  let shown = '';
  for (const id of tokenizer.encode(text)) {
    const piece = stream.push(id);
    assert.ok(!piece.includes('\ufffd'), piece);
    shown += piece;
    assert.ok(text.startsWith(shown));
  }
  assert.equal(shown + stream.end(), text);
  const cut = tokenizer.decoder();
  cut.push(tokenizer.encode('東')[0]!);
  assert.equal(cut.end(), '\ufffd');
});

test('text never becomes a special token, and special or unknown ids give no text', () => {
  const ids = tokenizer.encode('before<|endoftext|>after');
  assert.ok(!ids.includes(tokenizer.endOfText));
  assert.equal(tokenizer.decode(ids), 'before<|endoftext|>after');
  assert.equal(tokenizer.decode([tokenizer.endOfText, 999_999, -1]), '');
});

test('both ways to merge a word give the same ids', () => {
  // Merges among the letters 0..3, each result a new id, in any order that training could have given.
  const merges = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 30 }).map((pairs) => {
    const table: [number, number, number][] = [];
    for (const [a, b] of pairs) {
      const known = 4 + table.length;
      const [left, right] = [a % known, b % known];
      if (!table.some(([l, r]) => l === left && r === right)) table.push([left, right, known]);
    }
    return mergeTable(table, 64);
  });
  fc.assert(
    fc.property(merges, fc.array(fc.nat(3), { maxLength: 60 }), (table, word) => {
      assert.deepEqual(mergeWithHeap(word.slice(), table), mergeInPasses(word.slice(), table));
    }),
  );
});

test('a word of a megabyte is encoded', () => {
  const word = 'abcdefghijklmnopqrstuvwxyz'.repeat(40_000);
  assert.equal(tokenizer.decode(tokenizer.encode(word)), word);
});

test('merges may be written as pairs', () => {
  const file = JSON.parse(Buffer.from(json).toString());
  file.model.merges = file.model.merges.map((merge: string) => merge.split(' '));
  const text = samples.join(' ');
  assert.deepEqual(loadTokenizer(utf8(JSON.stringify(file))).encode(text), tokenizer.encode(text));
});

// biome-ignore lint/suspicious/noExplicitAny: the tests damage the file anywhere
type File = Record<string, any>;

const damage: readonly (readonly [string, (file: File) => void])[] = [
  ['tokenizer-invalid', (file) => delete file.model],
  ['tokenizer-invalid', (file) => (file.model.vocab = [])],
  ['tokenizer-invalid', (file) => (file.model.vocab.the = 5_000_000)],
  ['tokenizer-invalid', (file) => (file.model.vocab.the = 'x')],
  ['tokenizer-invalid', (file) => (file.model.vocab.the = 3)],
  ['tokenizer-invalid', (file) => (file.model.vocab['no such\u0000'] = 2048)],
  ['tokenizer-invalid', (file) => delete file.model.vocab['!']],
  ['tokenizer-invalid', (file) => file.model.merges.push('x')],
  ['tokenizer-invalid', (file) => file.model.merges.push(['q', 'qqqq'])],
  ['tokenizer-invalid', (file) => file.model.merges.push([{}, null])],
  ['tokenizer-invalid', (file) => (file.added_tokens = [])],
  ['tokenizer-invalid', (file) => (file.added_tokens[0].id = 'first')],
  ['tokenizer-unsupported', (file) => (file.model.type = 'Unigram')],
  ['tokenizer-unsupported', (file) => (file.normalizer = { type: 'Lowercase' })],
  ['tokenizer-unsupported', (file) => (file.pre_tokenizer = { type: 'Whitespace' })],
  ['tokenizer-unsupported', (file) => (file.pre_tokenizer.add_prefix_space = true)],
];

test('a damaged tokenizer.json gives one coded error', () => {
  for (const [code, change] of damage) {
    const file = JSON.parse(Buffer.from(json).toString());
    change(file);
    assert.throws(
      () => loadTokenizer(utf8(JSON.stringify(file))),
      { name: 'CodedError', code },
      String(change),
    );
  }
  assert.throws(() => loadTokenizer(json.subarray(0, 1000)), { code: 'tokenizer-invalid' });
  assert.throws(() => loadTokenizer(new Uint8Array([0xff, 0xfe])), { code: 'tokenizer-invalid' });
  assert.throws(() => loadTokenizer(new Uint8Array(tokenizerBytesMax + 1)), { code: 'tokenizer-invalid' });
});
