import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { equalBytes } from '../std/bytes.ts';
import type { Canonical } from '../std/codec.ts';
import { generateKeyPair } from './keys.ts';
import { bodyHash, signBody, verifySigned } from './signed.ts';

const key = generateKeyPair();
const bodies: fc.Arbitrary<Canonical> = fc.letrec<{ value: Canonical }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 2 },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    fc.string(),
    fc.uint8Array({ maxLength: 20 }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(fc.string(), tie('value'), { maxKeys: 4 }),
  ),
})).value;

test('a signed body verifies under its tag and under no other', () => {
  fc.assert(
    fc.property(bodies, (body) => {
      const signed = signBody('one', body, key);
      assert.equal(verifySigned('one', signed), true);
      assert.equal(verifySigned('two', signed), false);
    }),
    { numRuns: 15 },
  );
});

test('another body under the same signature does not verify', () => {
  fc.assert(
    fc.property(bodies, bodies, (body, other) => {
      const signed = signBody('tag', body, key);
      const isSame = equalBytes(bodyHash('tag', body), bodyHash('tag', other));
      assert.equal(verifySigned('tag', { ...signed, body: other }), isSame);
    }),
    { numRuns: 15 },
  );
});

test('another’s key under the signature does not verify', () => {
  const signed = signBody('tag', { round: 3 }, key);
  assert.equal(verifySigned('tag', { ...signed, publicKey: generateKeyPair().publicKey }), false);
});

test('the order of keys does not change what is signed', () => {
  const signature = signBody('tag', { a: 1, b: 2 }, key).signature;
  assert.deepEqual(signBody('tag', { b: 2, a: 1 }, key).signature, signature);
});

test('tag and body cannot be shifted into each other', () => {
  assert.notDeepEqual(bodyHash('ab', 'c'), bodyHash('a', 'bc'));
});

test('a body without canonical form never verifies and never throws', () => {
  const { signature, publicKey } = signBody('tag', null, key);
  for (const body of [Number.NaN, Number.POSITIVE_INFINITY, [Number.NaN]] as const) {
    assert.equal(verifySigned('tag', { body, signature, publicKey }), false);
  }
});
