import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testNetwork } from '../../test/consensus-group.ts';
import { utf8 } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { blockHash, decodeDecided, encodeDecided } from './block.ts';
import { makeCertificate, noHash } from './certificate.ts';
import { defaultLimits } from './limits.ts';
import { decodeMessage, encodeMessage, type Message } from './messages.ts';
import type { Block, DecidedBlock } from './types.ts';

const signature = new Uint8Array(64).fill(7);
const block: Block = { height: 9, parentHeight: 7, parentHash: sha256(utf8('p')), payload: utf8('payload') };
const hash = blockHash(testNetwork, block);
const certificate = makeCertificate(
  'finalize',
  9,
  hash,
  new Map([0, 2, 9].map((member) => [member, signature])),
);
const decided: DecidedBlock = { block, hash, certificate };
const samples: readonly Message[] = [
  { type: 'vote', vote: { kind: 'vote', height: 9, blockHash: hash, member: 2, signature } },
  { type: 'vote', vote: { kind: 'dummy', height: 9, blockHash: noHash, member: 2, signature } },
  { type: 'vote', vote: { kind: 'finalize', height: 2 ** 40, blockHash: hash, member: 255, signature } },
  { type: 'proposal', proposal: { block, hash, signature } },
  { type: 'certificate', certificate },
  { type: 'want', height: 9, hash: noHash },
  { type: 'decided', blocks: [decided] },
];
const decode = (bytes: Uint8Array) => decodeMessage(bytes, testNetwork, defaultLimits);

test('every message survives the wire, and says whether it is a repetition', () => {
  for (const message of samples) {
    const read = decode(encodeMessage(message, 3));
    assert.deepEqual(read.ok && read.value, { attempt: 3, message });
  }
});

test('a vote takes at most 130 bytes', () => {
  for (const message of samples) {
    if (message.type === 'vote') assert.ok(encodeMessage(message, 100).length <= 130);
  }
});

test('a block of another network has another hash', () => {
  assert.notDeepEqual(blockHash(sha256(utf8('other')), block), hash);
  assert.notDeepEqual(blockHash(testNetwork, { ...block, payload: utf8('payloae') }), hash);
});

test('bytes of any kind are refused with a code, never an exception', () => {
  const codes = new Set(['too-large', 'malformed', 'not-canonical', 'schema']);
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      const read = decode(bytes);
      assert.ok(!read.ok && codes.has(read.code));
    }),
  );
  fc.assert(
    fc.property(
      fc.constantFrom(...samples),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (message, at, flip) => {
        const bytes = encodeMessage(message);
        bytes[at % bytes.length]! ^= flip;
        const read = decode(bytes);
        assert.ok(read.ok || codes.has(read.code));
      },
    ),
  );
});

test('values of the wrong form are refused', () => {
  const wrong = [
    encodeCanonical({ a: 1 }),
    encodeCanonical([]),
    encodeCanonical([-1, 0, 0, 1, hash, 0, signature]),
    encodeCanonical([0, 9, 1]),
    encodeCanonical([0, 0, 0, 1, hash, 0]),
    encodeCanonical([0, 0, 0, 1, null, 0, signature]),
    encodeCanonical([0, 0, 1, 1, hash, 0, signature]),
    encodeCanonical([0, 0, 0, 0, hash, 0, signature]),
    encodeCanonical([0, 0, 0, 1, hash, -1, signature]),
    encodeCanonical([0, 1, [5, 5, hash, new Uint8Array()], signature]),
    encodeCanonical([0, 1, [5, 4, hash, new Uint8Array()], signature.slice(1)]),
    encodeCanonical([0, 3, 5, new Uint8Array(31)]),
  ];
  for (const bytes of wrong) {
    const read = decode(bytes);
    assert.ok(!read.ok && read.code === 'schema', JSON.stringify(read));
  }
});

test('sizes are bounded', () => {
  const payload = new Uint8Array(defaultLimits.payloadBytesMax + 1);
  const large = encodeMessage({
    type: 'proposal',
    proposal: { block: { ...block, payload }, hash, signature },
  });
  const read = decode(large);
  assert.ok(!read.ok && read.code === 'too-large');
  const huge = decode(new Uint8Array(defaultLimits.messageBytesMax + 1));
  assert.ok(!huge.ok && huge.code === 'too-large');
});

test('an answer of decided blocks survives the wire and is bounded', () => {
  const plain: DecidedBlock = { block, hash };
  const read = decodeDecided(encodeDecided([plain, decided]), testNetwork, defaultLimits);
  assert.deepEqual(read.ok && read.value, [plain, decided]);
  const many = Array.from({ length: defaultLimits.catchUpBlocksMax + 1 }, () => plain);
  const refused = decodeDecided(encodeDecided(many), testNetwork, defaultLimits);
  assert.ok(!refused.ok && refused.code === 'too-large');
});
