import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { utf8 } from '../std/bytes.ts';
import { loadTextCodec } from './text-codec.ts';
import { loadTokenizer } from './tokenizer.ts';

/** As SentencePiece tokenizers are converted: ▁ for spaces, single bytes for what the vocabulary has not. */
const bytes = Array.from(
  { length: 256 },
  (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`,
);
const tokens = ['<unk>', '<s>', '</s>', ...bytes, '▁', 'a', 'b', 'c', '▁a', 'ab', '▁ab', 'bc'];
const sentencePiece = {
  version: '1.0',
  added_tokens: [0, 1, 2].map((id) => ({ id, content: tokens[id], special: true, normalized: false })),
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  pre_tokenizer: null,
  post_processor: null,
  decoder: {
    type: 'Sequence',
    decoders: [
      { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
      { type: 'ByteFallback' },
      { type: 'Fuse' },
      { type: 'Strip', content: ' ', start: 1, stop: 0 },
    ],
  },
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    fuse_unk: true,
    byte_fallback: true,
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
    merges: ['▁ a', 'a b', '▁a b', 'b c'],
  },
};

test('a tokenizer of our own kind is read by our own encoder', () => {
  const json = new Uint8Array(
    readFileSync(new URL('../../data/state-of-the-union/tokenizer.json', import.meta.url)),
  );
  const codec = loadTextCodec(json);
  assert.deepEqual(codec.encode('Fellow citizens'), loadTokenizer(json).encode('Fellow citizens'));
  assert.equal(codec.vocabularySize, 2048);
});

test('another kind is read by the library, and streams the same text', () => {
  const codec = loadTextCodec(utf8(JSON.stringify(sentencePiece)));
  assert.equal(codec.vocabularySize, tokens.length);
  for (const text of ['ab', 'a b c', 'abc abc', 'a é 🙂 b', '']) {
    const ids = codec.encode(text);
    assert.ok(ids.every((id) => id > 2));
    const stream = codec.decoder();
    const pieces = ids.map((id) => stream.push(id));
    assert.equal(pieces.join('') + stream.end(), text);
    assert.ok(
      pieces.every((piece) => !piece.includes('\ufffd')),
      JSON.stringify(pieces),
    );
  }
  const unfinished = codec.decoder();
  assert.equal(unfinished.push(3 + 0xf0), '');
  assert.equal(unfinished.end(), '\ufffd');
});

test('what neither can read is refused in our words', () => {
  const bad: [unknown, string][] = [
    ['{', 'tokenizer-invalid'],
    [{}, 'tokenizer-invalid'],
    [{ ...sentencePiece, model: { type: 'Magic' } }, 'tokenizer-unsupported'],
  ];
  for (const [json, code] of bad) {
    const text = typeof json === 'string' ? json : JSON.stringify(json);
    assert.throws(() => loadTextCodec(utf8(text)), { code });
  }
});

test('a merge that makes no token is a damaged file, also of another kind', () => {
  const withMerges = (merges: readonly unknown[]) =>
    utf8(JSON.stringify({ ...sentencePiece, model: { ...sentencePiece.model, merges } }));
  assert.equal(loadTextCodec(withMerges([['a', 'b']])).vocabularySize, tokens.length);
  for (const merge of ['nonsense', 'a z', 'c a', ['a'], ['a', 'b', 'c']])
    assert.throws(() => loadTextCodec(withMerges(['a b', merge])), { name: 'CodedError' });
});
