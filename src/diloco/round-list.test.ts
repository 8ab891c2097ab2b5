import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { type KeyPair, keyPairFrom } from '../identity/keys.ts';
import { utf8 } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import { type Announcement, announce, announcementFields } from './announcement.ts';
import { decodeRoundList, drawRoundList, encodeRoundList, roundListBytesMax } from './round-list.ts';

const network = sha256(utf8('a network'));
const base = sha256Hex(utf8('base'));
const keys = Array.from({ length: 20 }, (_, i) => keyPairFrom(sha256(utf8(`node ${i}`))));
const announced = (key: KeyPair, change: Partial<Announcement> = {}) =>
  announce(network, { round: 3, base, blobHash: base, blobBytes: 10, batches: 5, ...change }, key);
const all = keys.map((key) => announced(key));
const codeOf = (payload: Uint8Array) => {
  const decoded = decodeRoundList(network, payload);
  return decoded.ok ? 'accepted' : decoded.code;
};
const codeOfList = (contributions: readonly Announcement[], round = 3, listBase = base) =>
  codeOf(encodeRoundList({ round, base: listBase, contributions }));

const nobody: ReadonlySet<string> = new Set();

test('what is drawn can be decoded, at most sixteen, whatever order the announcements came in', () => {
  const list = drawRoundList(3, base, all, nobody);
  assert.equal(list.contributions.length, 16);
  const bytes = encodeRoundList(list);
  assert.ok(bytes.length <= roundListBytesMax);
  const decoded = decodeRoundList(network, bytes);
  assert.ok(decoded.ok);
  assert.deepEqual(decoded.value, list);
  const order = (some: readonly Announcement[], from = base) =>
    drawRoundList(3, from, some, nobody).contributions.map(({ nodeId }) => nodeId);
  fc.assert(
    fc.property(fc.shuffledSubarray(all, { minLength: 1 }), (some) => {
      assert.deepEqual(order(some), order([...some].reverse()));
      assert.ok(order(some).every((nodeId) => some.some((one) => one.nodeId === nodeId)));
    }),
    { numRuns: 30 },
  );
  assert.notDeepEqual(order(all), order(all, sha256Hex(utf8('another base'))));
});

test('members are drawn before others, whatever their rank, and stand where they rank', () => {
  const members = new Set(all.slice(-5).map(({ nodeId }) => nodeId));
  const { contributions } = drawRoundList(3, base, all, members);
  assert.equal(contributions.length, 16);
  assert.equal(contributions.filter(({ nodeId }) => members.has(nodeId)).length, 5);
  assert.equal(codeOfList(contributions), 'accepted');
});

test('a list in another order, with a node twice or with seventeen entries is refused', () => {
  const { contributions } = drawRoundList(3, base, all, nobody);
  assert.equal(codeOfList(contributions), 'accepted');
  assert.equal(codeOfList([contributions[1]!, contributions[0]!]), 'wrong-order');
  assert.equal(codeOfList([contributions[0]!, contributions[0]!]), 'wrong-order');
  const twice = announced(keys[0]!, { batches: 6 });
  assert.equal(codeOfList([announced(keys[0]!), twice]), 'wrong-order');
  assert.equal(codeOfList([]), 'malformed-list');
  const seventeen = [...all.slice(0, 17)].sort((a, b) =>
    drawRoundList(3, base, [a, b], nobody).contributions[0] === a ? -1 : 1,
  );
  assert.equal(codeOfList(seventeen.slice(0, 16)), 'accepted', 'in order, so that only the count is wrong');
  assert.equal(codeOfList(seventeen), 'malformed-list');
});

test('entries of another round, base or network, or with another signature, are refused', () => {
  const [first, second] = drawRoundList(3, base, all, nobody).contributions as [Announcement, Announcement];
  assert.equal(codeOfList([first], 4), 'wrong-round');
  assert.equal(codeOfList([first], 3, sha256Hex(utf8('x'))), 'wrong-base');
  assert.equal(codeOfList([first, { ...second, batches: second.batches + 1 }]), 'bad-signature');
  const elsewhere = decodeRoundList(
    sha256(utf8('x')),
    encodeRoundList({ round: 3, base, contributions: [first] }),
  );
  assert.ok(!elsewhere.ok && elsewhere.code === 'bad-signature');
  const fields = announcementFields(first);
  assert.equal(codeOf(encodeCanonical([3, new Uint8Array(31), [fields]])), 'malformed-list');
  assert.equal(codeOf(encodeCanonical([-3, new Uint8Array(32), [fields]])), 'malformed-list');
  assert.equal(
    codeOf(encodeCanonical([3, sha256(utf8('base')), [fields.slice(1)]])),
    'malformed-announcement',
  );
  assert.equal(codeOf(new Uint8Array(roundListBytesMax + 1)), 'too-large');
});

test('property: no bytes make it throw', () => {
  const { contributions } = drawRoundList(3, base, all.slice(0, 2), nobody);
  assertNeverThrows(
    (bytes) => decodeRoundList(network, bytes),
    encodeRoundList({ round: 3, base, contributions }),
  );
});
