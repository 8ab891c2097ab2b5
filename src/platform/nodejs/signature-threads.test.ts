/** Signatures verified in threads: the verdicts of `verifyDigest`, whatever is sent. */
import assert from 'node:assert/strict';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { keyPairFrom, type SignedDigest, signDigest, verifyDigest } from '../../identity/keys.ts';
import { utf8 } from '../../std/bytes.ts';
import { sha256 } from '../../std/hash.ts';
import { createSignatureThreads } from './signature-threads.ts';

const threads = createSignatureThreads({ count: 2 });
after(() => threads.close());

const keys = ['a', 'b', 'c'].map((name) => keyPairFrom(sha256(utf8(name))));
const good = (seed: number): SignedDigest => {
  const key = keys[seed % keys.length]!;
  const digest = sha256(utf8(`${seed}`));
  return { digest, signature: signDigest(digest, key.secretKey), publicKey: key.publicKey };
};
const signed = fc
  .tuple(fc.nat({ max: 99 }), fc.constantFrom('good', 'bit', 'key', 'digest', 'short', 'long', 'no-point'))
  .map(([seed, how]): SignedDigest => {
    const { digest, signature, publicKey } = good(seed);
    if (how === 'bit') return { digest, signature: signature.with(seed % 64, 1), publicKey };
    if (how === 'key') return { digest, signature, publicKey: good(seed + 1).publicKey };
    if (how === 'digest') return { digest: sha256(digest), signature, publicKey };
    if (how === 'short') return { digest, signature: signature.subarray(1), publicKey };
    if (how === 'long') return { digest: new Uint8Array(40), signature, publicKey };
    if (how === 'no-point') return { digest, signature, publicKey: new Uint8Array(33).fill(255).with(0, 2) };
    return { digest, signature, publicKey };
  });

test('threads say what this thread says', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(signed, { maxLength: 40 }), async (all) => {
      const expected = all.map(({ digest, signature, publicKey }) =>
        verifyDigest(digest, signature, publicKey),
      );
      assert.deepEqual(await threads.verifyMany(all), expected);
    }),
    { numRuns: 20 },
  );
});

test('calls at the same time do not mix, and threads begin again after they ended', async () => {
  const all = Array.from({ length: 30 }, (_, i) =>
    i % 3 === 0 ? { ...good(i), digest: new Uint8Array(32) } : good(i),
  );
  const expected = all.map((_, i) => i % 3 !== 0);
  const both = await Promise.all([threads.verifyMany(all), threads.verifyMany(all.toReversed())]);
  assert.deepEqual(both, [expected, expected.toReversed()]);
  const asked = threads.verifyMany(all);
  const outcome = asked.then(
    () => 'answered',
    () => 'rejected',
  );
  await threads.close();
  assert.match(await outcome, /answered|rejected/);
  assert.deepEqual(await threads.verifyMany(all), expected);
});
