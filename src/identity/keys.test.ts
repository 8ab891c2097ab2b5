import assert from 'node:assert/strict';
import { createPublicKey, verify as nodeVerify } from 'node:crypto';
import { test } from 'node:test';
import { secp256k1 } from '@noble/curves/secp256k1.js';
import fc from 'fast-check';
import { concatBytes, fromHex, toHex, utf8 } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { generateKeyPair, isPublicKey, keyPairFrom, nodeIdOf, signDigest, verifyDigest } from './keys.ts';

const order = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;
const bytesOf = (value: bigint) => fromHex(value.toString(16).padStart(64, '0'));
const secretKeys = fc.bigInt({ min: 1n, max: order - 1n }).map((value) => keyPairFrom(bytesOf(value)));

/** RFC 6979 over secp256k1 and SHA-256, as in the tests of Trezor's crypto library and of python-ecdsa. */
const vectors: readonly [secretKey: string, message: string, signature: string][] = [
  [
    '0000000000000000000000000000000000000000000000000000000000000001',
    'Satoshi Nakamoto',
    '934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d82442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5',
  ],
  [
    '0000000000000000000000000000000000000000000000000000000000000001',
    'All those moments will be lost in time, like tears in rain. Time to die...',
    '8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21',
  ],
  [
    'fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140',
    'Satoshi Nakamoto',
    'fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d06b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5',
  ],
  [
    'f8b8af8ce3c7cca5e300d33939540c10d45ce001b8f252bfbc57ba0342904181',
    'Alan Turing',
    '7063ae83e7f62bbb171798131b4a0564b956930092b33b07b395615d9ec7e15c58dfcc1e00a35e1572f366ffe34ba0fc47db1e7189759b9fb233c5b05ab388ea',
  ],
];

test('signatures are those of the published vectors', () => {
  for (const [secretKey, message, signature] of vectors) {
    const key = keyPairFrom(fromHex(secretKey));
    const digest = sha256(utf8(message));
    assert.equal(toHex(signDigest(digest, key.secretKey)), signature);
    assert.equal(verifyDigest(digest, fromHex(signature), key.publicKey), true);
  }
});

test('the public key of secret key 1 is the generator, and the node id its SHA-256', () => {
  const key = keyPairFrom(bytesOf(1n));
  assert.equal(toHex(key.publicKey), '0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798');
  assert.equal(key.nodeId, '0f715baf5d4c2ed329785cef29e562f73488c8a2bb9dbc5700b361d54b9b0554');
  assert.equal(key.nodeId, nodeIdOf(key.publicKey));
});

test('OpenSSL takes what we sign', () => {
  const key = generateKeyPair();
  const point = secp256k1.Point.fromBytes(key.publicKey).toBytes(false);
  const jwk = {
    kty: 'EC',
    crv: 'secp256k1',
    x: Buffer.from(point.subarray(1, 33)).toString('base64url'),
    y: Buffer.from(point.subarray(33)).toString('base64url'),
  };
  const publicKey = createPublicKey({ key: jwk, format: 'jwk' });
  const message = utf8('a message');
  const signature = signDigest(sha256(message), key.secretKey);
  assert.equal(nodeVerify('sha256', message, { key: publicKey, dsaEncoding: 'ieee-p1363' }, signature), true);
});

test('what is signed verifies; any other digest, key or changed bit does not', () => {
  fc.assert(
    fc.property(
      secretKeys,
      secretKeys,
      fc.uint8Array({ maxLength: 64 }),
      fc.nat({ max: 511 }),
      (key, other, message, bit) => {
        const digest = sha256(message);
        const signature = signDigest(digest, key.secretKey);
        assert.deepEqual(signDigest(digest, key.secretKey), signature);
        assert.equal(verifyDigest(digest, signature, key.publicKey), true);
        assert.equal(verifyDigest(sha256(digest), signature, key.publicKey), false);
        if (other.nodeId !== key.nodeId)
          assert.equal(verifyDigest(digest, signature, other.publicKey), false);
        const changed = signature.slice();
        changed[bit >> 3]! ^= 1 << (bit & 7);
        assert.equal(verifyDigest(digest, changed, key.publicKey), false);
      },
    ),
    { numRuns: 20 },
  );
});

test('a high-S signature never verifies, though the curve equation holds for it', () => {
  fc.assert(
    fc.property(secretKeys, fc.uint8Array({ minLength: 32, maxLength: 32 }), (key, digest) => {
      const signature = signDigest(digest, key.secretKey);
      const s = BigInt(`0x${toHex(signature.subarray(32))}`);
      assert.ok(s <= order / 2n);
      const high = concatBytes(signature.subarray(0, 32), bytesOf(order - s));
      assert.equal(secp256k1.verify(high, digest, key.publicKey, { prehash: false, lowS: false }), true);
      assert.equal(verifyDigest(digest, high, key.publicKey), false);
    }),
    { numRuns: 10 },
  );
});

test('malformed signatures, keys and digests never verify and never throw', () => {
  const key = generateKeyPair();
  const digest = sha256(utf8('x'));
  const signature = signDigest(digest, key.secretKey);
  const zero = new Uint8Array(32);
  const signatures = [
    new Uint8Array(0),
    signature.subarray(0, 63),
    concatBytes(signature, new Uint8Array(1)),
    new Uint8Array(64),
    new Uint8Array(64).fill(255),
    concatBytes(zero, signature.subarray(32)),
    concatBytes(signature.subarray(0, 32), zero),
    concatBytes(bytesOf(order), signature.subarray(32)),
  ];
  for (const bad of signatures) assert.equal(verifyDigest(digest, bad, key.publicKey), false);
  const publicKeys = [
    new Uint8Array(0),
    new Uint8Array(33),
    new Uint8Array(33).fill(255),
    concatBytes(new Uint8Array([4]), key.publicKey.subarray(1)),
    secp256k1.Point.fromBytes(key.publicKey).toBytes(false),
  ];
  for (const bad of publicKeys) assert.equal(verifyDigest(digest, signature, bad), false);
  for (const bad of [new Uint8Array(0), digest.subarray(1), new Uint8Array(33)]) {
    assert.equal(verifyDigest(bad, signature, key.publicKey), false);
  }
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 70 }), fc.uint8Array({ maxLength: 70 }), (a, b) => {
      assert.equal(verifyDigest(digest, a, b), false);
    }),
  );
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 64, maxLength: 64 }), (bytes) => {
      assert.equal(verifyDigest(digest, bytes, key.publicKey), false);
    }),
    { numRuns: 20 },
  );
});

test('zero, the group order and wrong lengths are no secret keys', () => {
  for (const bad of [
    new Uint8Array(32),
    bytesOf(order),
    bytesOf(order + 1n),
    new Uint8Array(31).fill(1),
    new Uint8Array(33).fill(1),
  ]) {
    assert.throws(() => keyPairFrom(bad), RangeError);
  }
});

test('generated keys differ', () => {
  const ids = new Set(Array.from({ length: 20 }, () => generateKeyPair().nodeId));
  assert.equal(ids.size, 20);
});

test('keys, signatures and verdicts are those of another implementation', () => {
  fc.assert(
    fc.property(
      secretKeys,
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      (key, digest, x) => {
        assert.deepEqual(key.publicKey, secp256k1.getPublicKey(key.secretKey, true));
        const signature = secp256k1.sign(digest, key.secretKey, { prehash: false, lowS: true });
        assert.deepEqual(signDigest(digest, key.secretKey), signature);
        const point = concatBytes(new Uint8Array([2]), x);
        assert.equal(isPublicKey(point), secp256k1.utils.isValidPublicKey(point, true));
      },
    ),
    { numRuns: 40 },
  );
});

test('thousands of keys that are no points leave verifying as it was', () => {
  const key = generateKeyPair();
  const digest = sha256(utf8('x'));
  const signature = signDigest(digest, key.secretKey);
  const noPoint = new Uint8Array(33).fill(255).with(0, 2);
  for (let time = 0; time < 8000; time++) assert.equal(verifyDigest(digest, signature, noPoint), false);
  assert.equal(verifyDigest(digest, signature, key.publicKey), true);
  assert.deepEqual(signDigest(digest, key.secretKey), signature);
});

test('a key met again, with thousands between, gives the same verdicts as the first time', () => {
  const digest = sha256(utf8('x'));
  const key = generateKeyPair();
  const signature = signDigest(digest, key.secretKey);
  const verdicts = () => {
    const even = key.publicKey.with(0, 2);
    const odd = key.publicKey.with(0, 3);
    return [key.publicKey, even, odd].map((each) => verifyDigest(digest, signature, each));
  };
  const isEven = key.publicKey[0] === 2;
  const first = verdicts();
  assert.deepEqual(first, [true, isEven, !isEven]);
  assert.deepEqual(verdicts(), first);
  for (let i = 0; i < 5000; i++) {
    const x = sha256(utf8(`${i}`));
    verifyDigest(digest, new Uint8Array(64), concatBytes(new Uint8Array([2]), x));
  }
  assert.deepEqual(verdicts(), first);
});

test('verdicts are those of another implementation, for what is right, changed, high-S, out of range or of another key', () => {
  const someKeys = Array.from({ length: 4 }, (_, i) => keyPairFrom(bytesOf(BigInt(i + 1) ** 9n)));
  const pick = fc.nat({ max: someKeys.length - 1 }).map((i) => someKeys[i]!);
  const change = fc.constantFrom(
    'none',
    'bit',
    'high',
    'r-of-order',
    'zero-r',
    'zero-s',
    'odd-key',
    'digest',
  );
  fc.assert(
    fc.property(
      pick,
      pick,
      fc.boolean(),
      change,
      fc.nat({ max: 511 }),
      fc.uint8Array({ minLength: 32, maxLength: 32 }),
      (signer, stranger, isOwn, how, bit, digest) => {
        let signature = signDigest(digest, signer.secretKey);
        let { publicKey } = isOwn ? signer : stranger;
        const s = BigInt(`0x${toHex(signature.subarray(32))}`);
        if (how === 'bit') signature[bit >> 3]! ^= 1 << (bit & 7);
        if (how === 'high') signature = concatBytes(signature.subarray(0, 32), bytesOf(order - s));
        if (how === 'r-of-order') signature = concatBytes(bytesOf(order), signature.subarray(32));
        if (how === 'zero-r') signature.fill(0, 0, 32);
        if (how === 'zero-s') signature.fill(0, 32);
        if (how === 'odd-key') publicKey = publicKey.with(0, publicKey[0]! ^ 1);
        const asked = how === 'digest' ? sha256(digest) : digest;
        let expected = false;
        try {
          expected = secp256k1.verify(signature, asked, publicKey, { prehash: false, lowS: true });
        } catch {}
        assert.equal(verifyDigest(asked, signature, publicKey), expected);
        assert.equal(expected, how === 'none' && signer.nodeId === nodeIdOf(publicKey));
      },
    ),
    { numRuns: 150 },
  );
});
