/** What peers may send when one joins the ledger: whatever it is, it is read or refused with a code. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { testNetwork } from '../../test/consensus-group.ts';
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { decodeCounts, decodeEnds, encodeCounts, encodeEnds } from './ledger-sync-wire.ts';

const count = fc.nat({ max: Number.MAX_SAFE_INTEGER });

test('counts come out as they went in, and only so many', () => {
  fc.assert(
    fc.property(fc.array(count, { maxLength: 3 }), (counts) => {
      const bytes = encodeCounts(...counts);
      assert.deepEqual(decodeCounts(bytes, counts.length), { ok: true, value: counts });
      const other = decodeCounts(bytes, counts.length + 1);
      assert.equal(other.ok ? '' : other.code, 'schema');
    }),
  );
});

test('ends come out as they went in', () => {
  const block = { height: 3, parentHeight: 1, parentHash: new Uint8Array(32), payload: new Uint8Array([1]) };
  const signature = new Uint8Array(64).fill(9);
  const blockHash = new Uint8Array(32).fill(2);
  const certificate = {
    kind: 'finalize',
    height: 3,
    blockHash,
    signers: [0],
    signatures: [signature],
  } as const;
  const ends = [4, 5].map((epoch) => ({ epoch, blocks: [{ block, hash: blockHash, certificate }] }));
  const read = decodeEnds(encodeEnds(ends), testNetwork);
  assert.ok(read.ok);
  assert.deepEqual(
    read.value.map(({ epoch, blocks }) => [epoch, blocks[0]!.block, blocks[0]!.certificate]),
    ends.map(({ epoch }) => [epoch, block, certificate]),
  );
  // What a block is called is never believed.
  assert.notDeepEqual(read.value[0]!.blocks[0]!.hash, blockHash);
});

test('anything else is refused with a code', () => {
  const codes = new Set(['malformed', 'not-canonical', 'schema', 'too-large']);
  const refused = (bytes: Uint8Array) => {
    for (const read of [decodeCounts(bytes, 2), decodeEnds(bytes, testNetwork)])
      if (!read.ok) assert.ok(codes.has(read.code), read.code);
  };
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), refused));
  const leaf = fc.oneof(fc.integer(), fc.string(), fc.uint8Array({ maxLength: 40 }), fc.constant(null));
  const value = fc.letrec<{ value: unknown }>((tie) => ({
    value: fc.oneof({ maxDepth: 4 }, leaf, fc.array(tie('value'), { maxLength: 6 })),
  })).value;
  fc.assert(fc.property(value, (some) => refused(encodeCanonical(some as Canonical))));
  const many = decodeEnds(encodeCanonical(new Array(129).fill(new Uint8Array(0))), testNetwork);
  assert.equal(many.ok ? '' : many.code, 'schema');
});
