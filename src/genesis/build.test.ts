import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keyPairFrom } from '../identity/keys.ts';
import { type BuildOptions, buildMemoryDataset } from './build.ts';
import type { Document } from './readers/source.ts';
import { ShardPacker } from './shard-packer.ts';
import { loadTokenizer } from './tokenizer.ts';

const sentences = ['the cat sat on the mat. ', 'a dog ran after the cat. ', 'then the bird sang again. '];
const documents: readonly Document[] = Array.from({ length: 60 }, (_, i) => ({
  id: String(i),
  text: sentences[i % 3]!.repeat(5 + (i % 7)),
}));

function options(change: Partial<BuildOptions> = {}, given: readonly Document[] = documents): BuildOptions {
  const source = {
    origin: 'test',
    licence: 'CC0-1.0',
    documents: async function* () {
      yield* given;
    },
  };
  return { name: 'test', sources: [source], vocabularySize: 300, shardTokens: 256, ...change };
}

test('the same documents and options give the same hash; each change another', async () => {
  const { hash } = await buildMemoryDataset(options());
  const signed = await buildMemoryDataset(options({ key: keyPairFrom(new Uint8Array(32).fill(5)) }));
  assert.equal(signed.hash, hash, 'the signature is not part of the name');
  assert.ok(signed.publisher);
  const changed = [
    options({ name: 'other' }),
    options({ shardTokens: 128 }),
    options({ vocabularySize: 280 }),
    options({ heldOutEvery: 4 }),
    options({}, documents.toReversed()),
    options({}, documents.slice(1)),
  ];
  const hashes = new Set([hash]);
  for (const each of changed) hashes.add((await buildMemoryDataset(each)).hash);
  assert.equal(hashes.size, 1 + changed.length);
});

test('all documents are in the shards, one end of text after each', async () => {
  const dataset = await buildMemoryDataset(options());
  const tokenizer = loadTokenizer(dataset.tokenizerJson);
  const { shards, sources, vocabularySize } = dataset.manifest;
  assert.equal(vocabularySize, tokenizer.vocabularySize);
  assert.equal(sources[0]!.documents, documents.length);
  const counts = new Map<number, number>();
  let total = 0;
  for (const { index, tokens } of shards) {
    total += tokens;
    for (const id of await dataset.shard(index)) counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  const expected = documents.flatMap(({ text }) => tokenizer.encode(text));
  assert.equal(total, expected.length + documents.length);
  assert.equal(counts.get(tokenizer.endOfText), documents.length);
  for (const id of new Set(expected)) {
    assert.equal(counts.get(id), expected.filter((each) => each === id).length);
  }
});

test('pieces of one document are joined without an end of text', async () => {
  const pieces = documents.map((document, i) => ({ ...document, continued: i % 10 !== 9 }));
  const dataset = await buildMemoryDataset(options({}, pieces));
  assert.equal(dataset.manifest.sources[0]!.documents, 6);
  let ends = 0;
  for (const { index } of dataset.manifest.shards) {
    for (const id of await dataset.shard(index)) if (id === 0) ends++;
  }
  assert.equal(ends, 6);
});

test('an existing tokenizer is kept, byte for byte', async () => {
  const first = await buildMemoryDataset(options());
  const second = await buildMemoryDataset(
    options({ tokenizerJson: first.tokenizerJson }, documents.slice(20)),
  );
  assert.deepEqual(second.tokenizerJson, first.tokenizerJson);
  assert.deepEqual(second.manifest.tokenizerHash, first.manifest.tokenizerHash);
});

test('held-out shards are interleaved, and there is always one on either side', async () => {
  const many = await buildMemoryDataset(options({ shardTokens: 64, heldOutEvery: 4 }));
  const { heldOut, shards } = many.manifest;
  assert.ok(shards.length > 16);
  assert.deepEqual(
    heldOut,
    Array.from({ length: Math.ceil((shards.length - 2) / 4) }, (_, i) => 2 + 4 * i),
  );
  const two = await buildMemoryDataset(options({ shardTokens: 64 }, documents.slice(0, 4)));
  assert.ok(two.manifest.heldOut.length === 1 && two.manifest.shards.length >= 2);
});

test('what cannot be built is one coded error', async () => {
  const codes: readonly (readonly [string, BuildOptions])[] = [
    ['corpus-too-small', options({}, [])],
    ['corpus-too-small', options({ shardTokens: 65_536 })],
    ['bad-option', options({ name: '' })],
    ['bad-option', options({ sources: [] })],
    ['bad-option', options({ shardTokens: 1 })],
    ['bad-option', options({ heldOutEvery: 1 })],
    ['bad-vocabulary-size', options({ vocabularySize: 10 })],
    ['tokenizer-invalid', options({ tokenizerJson: new Uint8Array([1]) })],
  ];
  for (const [code, each] of codes) {
    await assert.rejects(buildMemoryDataset(each), { name: 'CodedError', code }, code);
  }
  const abort = new AbortController();
  const stopping = options({
    signal: abort.signal,
    onProgress: () => abort.abort(new Error('asked to stop')),
  });
  await assert.rejects(buildMemoryDataset(stopping), /asked to stop/);
});

test('the packer keeps every token once, whole blocks in order, and fills shards evenly', async () => {
  const shardTokens = 64;
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(900), { maxLength: 30 }), async (lengths) => {
      const shards: Uint32Array[] = [];
      const packer = new ShardPacker(shardTokens, async (ids) => void shards.push(ids));
      let next = 0;
      for (const length of lengths) await packer.add(Uint32Array.from({ length }, () => next++));
      await packer.end();
      assert.equal(packer.tokens, next);
      const all = shards.flatMap((ids) => [...ids]);
      assert.deepEqual(
        all.toSorted((a, b) => a - b),
        Array.from({ length: next }, (_, i) => i),
      );
      for (const ids of shards) {
        for (let i = 1; i < ids.length; i++)
          assert.ok(ids[i]! > ids[i - 1]!, 'a shard keeps the order of the text');
        if (next >= shardTokens)
          assert.ok(ids.length >= shardTokens / 2 - 4 && ids.length <= 1.5 * shardTokens + 4);
      }
    }),
    { numRuns: 100 },
  );
});

test('each shard of a group is a cross-section of it', async () => {
  const shards: Uint32Array[] = [];
  const packer = new ShardPacker(1024, async (ids) => void shards.push(ids));
  const total = 32 * 1024;
  await packer.add(Uint32Array.from({ length: total }, (_, i) => i));
  await packer.end();
  assert.equal(shards.length, 32);
  for (const ids of shards) {
    assert.ok(ids[0]! < total / 8 && ids.at(-1)! > (7 * total) / 8);
  }
});

test('without a wish, a small corpus gets smaller shards', async () => {
  for (const [tokens, shardTokens] of [
    [3_000, 1_024],
    [100_000, 2_048],
    [3_000_000, 65_536],
  ] as const) {
    const sizes: number[] = [];
    const packer = new ShardPacker(undefined, async (ids) => void sizes.push(ids.length));
    await packer.add(new Uint32Array(tokens));
    await packer.end();
    assert.equal(sizes.length, Math.round(tokens / shardTokens));
  }
});
