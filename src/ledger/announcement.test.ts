import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import {
  announce,
  announcementBytesMax,
  announcementFields,
  decodeAnnouncement,
  encodeAnnouncement,
} from './announcement.ts';

const network = sha256(utf8('a network'));
const key = keyPairFrom(sha256(utf8('a contributor')));
const body = {
  round: 7,
  stage: 1,
  base: sha256Hex(utf8('base')),
  blobHash: sha256Hex(utf8('blob')),
  blobBytes: 1234,
  batches: 20,
};
const one = announce(network, body, key);
const codeOf = (fields: unknown[]) => {
  const decoded = decodeAnnouncement(network, encodeCanonical(fields as number[]));
  return decoded.ok ? 'accepted' : decoded.code;
};

test('property: what is encoded is what is decoded, within the bound', () => {
  const hash = fc.uint8Array({ minLength: 32, maxLength: 32 }).map(toHex);
  const counter = fc.maxSafeNat();
  const bodies = fc.record({
    round: counter,
    stage: fc.nat(65_535),
    base: hash,
    blobHash: hash,
    blobBytes: counter,
    batches: counter,
  });
  fc.assert(
    fc.property(bodies, (each) => {
      const made = announce(network, each, key);
      const bytes = encodeAnnouncement(made);
      assert.ok(bytes.length <= announcementBytesMax);
      const decoded = decodeAnnouncement(network, bytes);
      assert.ok(decoded.ok);
      assert.deepEqual(decoded.value, made);
      assert.equal(decoded.value.nodeId, key.nodeId);
    }),
    { numRuns: 15 },
  );
});

test('every field is signed, and so is the network', () => {
  const fields = announcementFields(one);
  assert.equal(codeOf(fields), 'accepted');
  const other = sha256(utf8('other'));
  for (const [index, value] of [8, 2, other, other, 1235, 19].entries())
    assert.equal(codeOf(fields.with(index, value)), 'bad-signature');
  const stranger = keyPairFrom(sha256(utf8('a stranger')));
  assert.equal(codeOf(fields.with(6, stranger.publicKey)), 'bad-signature');
  const elsewhere = decodeAnnouncement(other, encodeAnnouncement(one));
  assert.ok(!elsewhere.ok && elsewhere.code === 'bad-signature');
});

test('wrong kinds, lengths and counts are malformed', () => {
  const fields = announcementFields(one);
  const wrong: [number, unknown][] = [
    [0, -1],
    [0, 1.5],
    [0, '7'],
    [1, -1],
    [1, 65_536],
    [2, new Uint8Array(31)],
    [3, 'hash'],
    [4, -1],
    [5, 0.5],
    [6, new Uint8Array(32)],
    [7, new Uint8Array(65)],
  ];
  for (const [index, value] of wrong)
    assert.equal(codeOf(fields.with(index, value as number)), 'malformed-announcement');
  assert.equal(codeOf(fields.slice(0, 7)), 'malformed-announcement');
  assert.equal(codeOf([...fields, 0]), 'malformed-announcement');
  const oversize = decodeAnnouncement(network, new Uint8Array(announcementBytesMax + 1));
  assert.ok(!oversize.ok && oversize.code === 'too-large');
  for (const publicKey of [new Uint8Array(33), new Uint8Array(33).fill(2)])
    assert.equal(codeOf(fields.with(6, publicKey)), 'bad-signature');
});

test('property: no bytes make it throw', () => {
  assertNeverThrows((bytes) => decodeAnnouncement(network, bytes), encodeAnnouncement(one));
});
