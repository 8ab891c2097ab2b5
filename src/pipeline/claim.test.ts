import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { countedDataset } from '../../test/counted-dataset.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { encodeCanonical } from '../std/codec.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import {
  type ClaimBody,
  checkAccusation,
  checkClaim,
  claimBytesMax,
  contentHash,
  createFraudBook,
  decodeClaim,
  encodeClaim,
  isFraud,
  makeClaim,
} from './claim.ts';

const dataset = await countedDataset('claims', 60);
const plan = { batch: 2, sequence: 16, innerSteps: 5, microbatches: 3 };
const ground = { dataset, plan };
const networkId = new Uint8Array(32).fill(7);
const key = keyPairFrom(new Uint8Array(32).fill(1));
const other = keyPairFrom(new Uint8Array(32).fill(2));

const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'ok' : outcome.code);
const trueBatch = (place: Omit<ClaimBody, 'content'>, nodeId = key.nodeId) =>
  batchOf({ dataset, nodeId, ...place, ...plan });

async function trueClaim(place = { round: 3, step: 2, index: 1 }) {
  const { tokens, labels } = await trueBatch(place);
  return makeClaim(networkId, { ...place, content: contentHash(tokens, labels) }, key);
}

test('every true claim passes with its labels, on every node, and convicts nobody', async () => {
  const places = fc.record({
    round: fc.integer({ min: 0, max: 100_000 }),
    step: fc.integer({ min: 0, max: plan.innerSteps - 1 }),
    index: fc.integer({ min: 0, max: plan.microbatches - 1 }),
  });
  await fc.assert(
    fc.asyncProperty(places, async (place) => {
      const message = encodeClaim(await trueClaim(place));
      assert.ok(message.length <= claimBytesMax);
      const decoded = decodeClaim(networkId, message);
      assert.ok(decoded.ok);
      assert.equal(decoded.value.nodeId, key.nodeId);
      const { labels } = await trueBatch(place);
      assert.equal(codeOf(await checkClaim(decoded.value, ground, labels)), 'ok');
      assert.equal(await isFraud(decoded.value, ground), false);
      assert.equal(codeOf(await checkAccusation(networkId, message, ground)), 'not-fraud');
    }),
    { numRuns: 25 },
  );
});

test('another batch, content or Driver is fraud', async () => {
  const place = { round: 3, step: 2, index: 1 };
  const { tokens, labels } = await trueBatch(place);
  const content = contentHash(tokens, labels);
  const altered = labels.slice();
  altered[5] = (altered[5]! + 1) % 260;
  const bodies: ClaimBody[] = [
    { ...place, round: 4, content },
    { ...place, step: 1, content },
    { ...place, index: 0, content },
    { ...place, step: plan.innerSteps, content },
    { ...place, index: plan.microbatches, content },
    { ...place, round: 0xffff_ffff, content },
    { ...place, content: contentHash(tokens, altered) },
    { ...place, content: contentHash(labels, tokens) },
  ];
  for (const body of bodies) {
    const claim = makeClaim(networkId, body, key);
    assert.equal(codeOf(await checkClaim(claim, ground, labels)), 'wrong-batch');
    const convicted = await checkAccusation(networkId, encodeClaim(claim), ground);
    assert.ok(convicted.ok);
    assert.equal(convicted.value.nodeId, key.nodeId);
  }
  const stolen = makeClaim(networkId, { ...place, content }, other);
  assert.equal(codeOf(await checkClaim(stolen, ground)), 'wrong-batch');
});

test('labels changed on the way are refused and convict no Driver', async () => {
  const claim = await trueClaim();
  const { labels } = await trueBatch(claim);
  labels[0] = (labels[0]! + 1) % 260;
  assert.equal(codeOf(await checkClaim(claim, ground, labels)), 'wrong-labels');
  assert.equal(codeOf(await checkClaim(claim, ground, labels.subarray(1))), 'wrong-labels');
  assert.equal(await isFraud(claim, ground), false);
});

test('a node without the dataset convicts nobody', async () => {
  const claim = { ...(await trueClaim()), content: '00'.repeat(32) };
  const shard = async () => {
    throw new CodedError('shard-missing', 'no such file');
  };
  const away = { dataset: { ...dataset, shard } as Dataset, plan };
  assert.equal(codeOf(await checkClaim(claim, away)), 'unchecked');
  assert.equal(await isFraud(claim, away), false);
});

test('a claim counts only as signed, and in its network', async () => {
  const claim = await trueClaim();
  const message = encodeClaim(claim);
  assert.equal(codeOf(decodeClaim(new Uint8Array(32), message)), 'bad-signature');
  for (const change of [{ round: 9 }, { step: 0 }, { index: 2 }, { content: 'ab'.repeat(32) }])
    assert.equal(codeOf(decodeClaim(networkId, encodeClaim({ ...claim, ...change }))), 'bad-signature');
  const renamed = encodeClaim({ ...claim, publicKey: other.publicKey });
  assert.equal(codeOf(decodeClaim(networkId, renamed)), 'bad-signature');
});

test('bytes that are no claim have a code', async () => {
  const { publicKey, signature } = await trueClaim();
  const hash = new Uint8Array(32);
  const malformed = [
    [-1, 0, 0, hash, publicKey, signature],
    [0.5, 0, 0, hash, publicKey, signature],
    [2 ** 32, 0, 0, hash, publicKey, signature],
    [0, 0, 0, hash.subarray(1), publicKey, signature],
    [0, 0, 0, hash, publicKey, signature, 0],
    [0, 0, 0, hash, publicKey],
    { round: 0 },
  ];
  for (const value of malformed)
    assert.equal(codeOf(decodeClaim(networkId, encodeCanonical(value))), 'malformed-claim');
  assert.equal(codeOf(decodeClaim(networkId, new Uint8Array(claimBytesMax + 1))), 'malformed-claim');
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) =>
      assert.equal(codeOf(decodeClaim(networkId, bytes)), 'malformed-claim'),
    ),
  );
});

test('the book keeps one claim for each convicted Driver, and only so many', () => {
  const forgotten: string[] = [];
  const book = createFraudBook(2, (node) => forgotten.push(node));
  const keys = [3, 4, 5].map((byte) => keyPairFrom(new Uint8Array(32).fill(byte)));
  const [first, second, third] = keys.map((one) =>
    makeClaim(networkId, { round: 1, step: 0, index: 0, content: '00'.repeat(32) }, one),
  );
  assert.equal(book.has(first!.nodeId), false);
  assert.equal(book.add(first!), true);
  assert.equal(book.add({ ...first!, round: 2 }), false);
  assert.deepEqual(book.evidence(first!.nodeId), encodeClaim(first!));
  book.add(second!);
  book.add(third!);
  assert.equal(book.size(), 2);
  assert.deepEqual(book.nodes(), [second!.nodeId, third!.nodeId]);
  assert.equal(book.evidence(first!.nodeId), undefined);
  assert.deepEqual(forgotten, [first!.nodeId]);
  assert.equal(book.remove(second!.nodeId), true);
  assert.equal(book.remove(second!.nodeId), false);
  assert.deepEqual([book.has(second!.nodeId), forgotten.length], [false, 1]);
});
