/** The canonical codec: round trips, one form only, and bytes that nobody else holds. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type Canonical, decodeCanonical, encodeCanonical } from './codec.ts';

const { value } = fc.letrec<{ value: Canonical }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.integer(),
    fc.string(),
    fc.uint8Array({ maxLength: 300 }),
    fc.array(tie('value') as fc.Arbitrary<Canonical>, { maxLength: 5 }),
  ),
}));

test('what is encoded is decoded, to plain Uint8Arrays of their own memory', () => {
  fc.assert(
    fc.property(value, (one) => {
      const bytes = encodeCanonical(one);
      assert.equal(Object.getPrototypeOf(bytes), Uint8Array.prototype);
      for (const given of [bytes, Buffer.from(bytes)]) {
        const decoded = decodeCanonical(given, bytes.length);
        assert.ok(decoded.ok);
        assert.deepEqual(decoded.value, one);
      }
    }),
  );
  // Of this size the library makes a Buffer.
  const bytes = encodeCanonical([new Uint8Array(100), new Uint8Array(100)]);
  const copy = bytes.slice();
  copy.fill(1);
  assert.equal(bytes[bytes.length - 1], 0);
});

test('too large, malformed and other forms of the same value are refused', () => {
  const code = (bytes: number[], bytesMax = 100) => {
    const decoded = decodeCanonical(new Uint8Array(bytes), bytesMax);
    return decoded.ok ? 'ok' : decoded.code;
  };
  assert.equal(code([0x83, 1, 2, 3]), 'ok');
  assert.equal(code([0x83, 1, 2, 3], 3), 'too-large');
  assert.equal(code([0x83, 1, 2]), 'malformed');
  assert.equal(code([0x83, 1, 2, 3, 4]), 'malformed');
  assert.notEqual(code([0x18, 1]), 'ok', 'a longer form of 1');
  assert.notEqual(code([0x9f, 1, 0xff]), 'ok', 'no end given');
});
