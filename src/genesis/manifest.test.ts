import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { keyPairFrom } from '../identity/keys.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import {
  type DatasetManifest,
  decodeManifest,
  encodeManifest,
  manifestHash,
  manifestLimits,
  publishManifest,
  trainingShards,
} from './manifest.ts';

const hash = (fill: number) => new Uint8Array(32).fill(fill);
const key = keyPairFrom(hash(7));

const manifest: DatasetManifest = {
  format: 1,
  name: 'test',
  sources: [{ origin: 'a.txt', licence: 'CC0-1.0', documents: 2, hash: hash(1) }],
  tokenizerHash: hash(2),
  vocabularySize: 300,
  tokenBytes: 2,
  shards: [0, 1, 2].map((index) => ({ index, tokens: 100, bytes: 200, merkleRoot: hash(10 + index) })),
  heldOut: [1],
};

function accepted(decoded: ReturnType<typeof decodeManifest>) {
  assert.ok(decoded.ok, JSON.stringify(decoded));
  return decoded.value;
}

test('round trip, unsigned and signed; the hash is of the body alone', () => {
  for (const publisher of [null, key]) {
    const published = publishManifest(manifest, publisher);
    const decoded = accepted(decodeManifest(encodeManifest(published)));
    assert.deepEqual(decoded, published);
    assert.equal(decoded.hash, manifestHash(manifest));
    assert.equal(decoded.publisher === null, publisher === null);
  }
  assert.deepEqual(trainingShards(manifest), [0, 2]);
});

test('every part of the body is in the hash', () => {
  const hashes = new Set([
    manifestHash(manifest),
    manifestHash({ ...manifest, name: 'other' }),
    manifestHash({ ...manifest, heldOut: [2] }),
    manifestHash({ ...manifest, tokenizerHash: hash(3) }),
    manifestHash({ ...manifest, sources: [] }),
    manifestHash({ ...manifest, shards: manifest.shards.slice(0, 2) }),
  ]);
  assert.equal(hashes.size, 6);
});

const withShard = (change: object) => ({
  ...manifest,
  shards: [manifest.shards[0], { ...manifest.shards[1], ...change }, manifest.shards[2]],
});
const withSource = (change: object) => ({ ...manifest, sources: [{ ...manifest.sources[0], ...change }] });

const hostile: readonly (readonly [why: string, body: unknown])[] = [
  ['fields of the manifest', null],
  ['fields of the manifest', 7],
  ['fields of the manifest', []],
  ['fields of the manifest', hash(1)],
  ['fields of the manifest', {}],
  ['fields of the manifest', { ...manifest, extra: 1 }],
  ['format', { ...manifest, format: 2 }],
  ['name', { ...manifest, name: '' }],
  ['name', { ...manifest, name: 'x'.repeat(5000) }],
  ['tokenizerHash', { ...manifest, tokenizerHash: hash(1).subarray(1) }],
  ['tokenizerHash', { ...manifest, tokenizerHash: 'abc' }],
  ['vocabularySize', { ...manifest, vocabularySize: 0 }],
  ['vocabularySize', { ...manifest, vocabularySize: 2 ** 40 }],
  ['vocabularySize', { ...manifest, vocabularySize: 300.5 }],
  ['tokenBytes', { ...manifest, tokenBytes: 4 }],
  ['tokenBytes', { ...manifest, vocabularySize: 70_000 }],
  ['sources', { ...manifest, sources: 'all' }],
  ['sources[0]', withSource({ licence: 5 })],
  ['sources[0].hash', withSource({ hash: hash(1).subarray(2) })],
  ['sources[0].documents', withSource({ documents: -1 })],
  ['shards', { ...manifest, shards: manifest.shards.slice(0, 1) }],
  ['shards', { ...manifest, shards: { length: 3 } }],
  ['shards[1]', withShard({ index: 0 })],
  ['shards[1]', withShard({ more: 1 })],
  ['shards[1].tokens', withShard({ tokens: 0, bytes: 0 })],
  ['shards[1].tokens', withShard({ tokens: -5 })],
  ['shards[1].tokens', withShard({ tokens: 2 ** 33, bytes: 2 ** 34 })],
  ['shards[1].bytes', withShard({ bytes: 201 })],
  ['shards[1].merkleRoot', withShard({ merkleRoot: hash(1).subarray(31) })],
  ['heldOut', { ...manifest, heldOut: [] }],
  ['heldOut', { ...manifest, heldOut: [0, 1, 2] }],
  ['heldOut', { ...manifest, heldOut: [1, 1] }],
  ['heldOut', { ...manifest, heldOut: [2, 1] }],
  ['heldOut', { ...manifest, heldOut: [3] }],
  ['heldOut', { ...manifest, heldOut: [-1] }],
];

test('a hostile manifest is rejected, naming the field', () => {
  for (const [why, body] of hostile) {
    const bytes = encodeCanonical({ body: body as Canonical, publicKey: null, signature: null });
    assert.deepEqual(decodeManifest(bytes), { ok: false, code: 'bad-manifest', detail: why });
  }
});

test('signatures: of another body, another key, half there, or not bytes', () => {
  const signed = publishManifest(manifest, key);
  const { publicKey, signature } = signed.publisher!;
  const codeOf = (outer: Record<string, unknown>) => {
    const decoded = decodeManifest(encodeCanonical(outer as Canonical));
    return decoded.ok ? 'ok' : decoded.code;
  };
  assert.equal(codeOf({ body: manifest, publicKey, signature }), 'ok');
  assert.equal(codeOf({ body: { ...manifest, name: 'x' }, publicKey, signature }), 'bad-signature');
  const other = keyPairFrom(hash(9)).publicKey;
  assert.equal(codeOf({ body: manifest, publicKey: other, signature }), 'bad-signature');
  assert.equal(codeOf({ body: manifest, publicKey, signature: null }), 'bad-manifest');
  assert.equal(codeOf({ body: manifest, publicKey: 'key', signature }), 'bad-manifest');
  assert.equal(codeOf({ body: manifest, publicKey: null }), 'bad-manifest');
});

test('any bytes, any truncation and any flipped bit are rejected without a crash', () => {
  const bytes = encodeManifest(publishManifest(manifest, key));
  for (let length = 0; length < bytes.length; length += 7) {
    assert.equal(decodeManifest(bytes.subarray(0, length)).ok, false);
  }
  fc.assert(fc.property(fc.uint8Array(), (noise) => assert.equal(decodeManifest(noise).ok, false)));
  fc.assert(
    fc.property(fc.nat(bytes.length * 8 - 1), (bit) => {
      const flipped = bytes.slice();
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      assert.equal(decodeManifest(flipped).ok, false);
    }),
  );
  const tooLarge = decodeManifest(new Uint8Array(manifestLimits.bytesMax + 1));
  assert.equal(tooLarge.ok ? 'ok' : tooLarge.code, 'too-large');
});
