import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { type KeyPair, keyPairFrom } from '../identity/keys.ts';
import { type Announcement, announce, announcementFields } from '../ledger/announcement.ts';
import { utf8 } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import {
  decodeRoundList,
  drawRoundList,
  encodeRoundList,
  listedMax,
  listedPerStage,
  roundListBytesMax,
  shareOf,
} from './round-list.ts';

const network = sha256(utf8('a network'));
const bases = [sha256Hex(utf8('base')), sha256Hex(utf8('base of stage 1'))] as const;
const [base] = bases;
const keys = Array.from({ length: 20 }, (_, i) => keyPairFrom(sha256(utf8(`node ${i}`))));
const announced = (key: KeyPair, change: Partial<Announcement> = {}) => {
  const body = { round: 3, stage: 0, base, blobHash: base, blobBytes: 10, batches: 5 };
  return announce(network, { ...body, ...change }, key);
};
const all = keys.map((key) => announced(key));
/** The even ones hold stage 0, the odd ones stage 1. */
const halves = keys.map((key, i) => announced(key, { stage: i % 2, base: bases[i % 2]! }));
const codeOf = (payload: Uint8Array) => {
  const decoded = decodeRoundList(network, payload);
  return decoded.ok ? 'accepted' : decoded.code;
};
const codeOfList = (contributions: readonly Announcement[], round = 3) =>
  codeOf(encodeRoundList({ round, contributions }));

const nobody: ReadonlyMap<string, number> = new Map();
const draw = (announcements: readonly Announcement[], stages = 1, members = nobody) =>
  drawRoundList({ round: 3, announcements, stages, members });

test('what is drawn can be decoded, at most sixteen of a stage, whatever order they came in', () => {
  for (const [some, stages] of [
    [all, 1],
    [halves, 2],
  ] as const) {
    const list = draw(some, stages);
    assert.equal(list.contributions.length, stages === 1 ? 16 : 20);
    const bytes = encodeRoundList(list);
    assert.ok(bytes.length <= roundListBytesMax);
    const decoded = decodeRoundList(network, bytes);
    assert.ok(decoded.ok);
    assert.deepEqual(decoded.value, list);
    fc.assert(
      fc.property(fc.shuffledSubarray([...some], { minLength: 1 }), (subset) => {
        const { contributions } = draw(subset, stages);
        assert.deepEqual(contributions, draw([...subset].reverse(), stages).contributions);
        assert.ok(contributions.every((one) => subset.includes(one)));
        assert.ok(contributions.every(({ stage }, i) => i === 0 || contributions[i - 1]!.stage <= stage));
      }),
      { numRuns: 30 },
    );
  }
  const order = (from: string) =>
    draw(keys.map((key) => announced(key, { base: from }))).contributions.map(({ nodeId }) => nodeId);
  assert.notDeepEqual(order(base), order(bases[1]));
});

test('members of the cohort are drawn before others, whatever their rank, and stand where they rank', () => {
  const members = new Map(all.slice(-5).map(({ nodeId }) => [nodeId, 0]));
  const { contributions } = draw(all, 1, members);
  assert.equal(contributions.length, 16);
  assert.equal(contributions.filter(({ nodeId }) => members.has(nodeId)).length, 5);
  assert.equal(codeOfList(contributions), 'accepted');
  const elsewhere = new Map(all.slice(-5).map(({ nodeId }) => [nodeId, 1]));
  assert.deepEqual(draw(all, 1, elsewhere), draw(all), 'a member of another cohort is one of many here');
});

test('a list in another order, with a node twice or with seventeen of a stage is refused', () => {
  const { contributions } = draw(all);
  assert.equal(codeOfList(contributions), 'accepted');
  assert.equal(codeOfList([contributions[1]!, contributions[0]!]), 'wrong-order');
  assert.equal(codeOfList([contributions[0]!, contributions[0]!]), 'listed-twice');
  const both = [announced(keys[0]!), announced(keys[0]!, { stage: 1, base: bases[1] })];
  assert.equal(codeOfList(both), 'listed-twice');
  assert.equal(codeOfList([]), 'accepted', 'of a round in which no audit ended in time');
  const [first, second] = [halves[0]!, halves[1]!];
  assert.equal(codeOfList([first, second]), 'accepted');
  assert.equal(codeOfList([second, first]), 'wrong-order');
  const seventeen = [...all.slice(0, 17)].sort((a, b) => (draw([a, b]).contributions[0] === a ? -1 : 1));
  assert.equal(codeOfList(seventeen.slice(0, 16)), 'accepted', 'in order, so that only the count is wrong');
  assert.equal(codeOfList(seventeen), 'too-many-contributors');
});

test('entries of another round or network, with another signature, or of two bases in a stage, are refused', () => {
  const [first, second] = draw(all).contributions as [Announcement, Announcement];
  assert.equal(codeOfList([first], 4), 'wrong-round');
  const torn = [announced(keys[0]!), announced(keys[1]!, { base: bases[1] })];
  assert.equal(codeOfList(torn), 'wrong-base');
  assert.equal(codeOfList([first, { ...second, batches: second.batches + 1 }]), 'bad-signature');
  assert.equal(codeOfList([first, { ...second, stage: 1 }]), 'bad-signature');
  const elsewhere = decodeRoundList(sha256(utf8('x')), encodeRoundList({ round: 3, contributions: [first] }));
  assert.ok(!elsewhere.ok && elsewhere.code === 'bad-signature');
  const fields = announcementFields(first);
  assert.equal(codeOf(encodeCanonical([3, new Uint8Array(32), [fields]])), 'malformed-list');
  assert.equal(codeOf(encodeCanonical([-3, [fields]])), 'malformed-list');
  assert.equal(codeOf(encodeCanonical([3, [fields.slice(1)]])), 'malformed-announcement');
  assert.equal(codeOf(new Uint8Array(roundListBytesMax + 1)), 'too-large');
});

test('the list of as many stages as there may be fits a block', () => {
  for (const stages of [1, 2, 10, 11, 128]) assert.ok(listedPerStage(stages) * stages <= listedMax);
  const most = Number.MAX_SAFE_INTEGER;
  const largest = announced(keys[0]!, { round: most, stage: 65_535, blobBytes: most, batches: most });
  const contributions = Array.from({ length: listedMax }, () => largest);
  const { length } = encodeRoundList({ round: most, contributions });
  assert.ok(length <= roundListBytesMax && roundListBytesMax <= defaultLimits.payloadBytesMax);
});

test('the share of a stage: its contributions in order, and nothing where it has none', () => {
  const list = draw(halves, 2);
  const [first, second, third] = [0, 1, 2].map((stage) => shareOf(list, stage));
  assert.deepEqual([...first!.contributions, ...second!.contributions], list.contributions);
  assert.deepEqual([first!.base, second!.base, third!.base], [...bases, undefined]);
  assert.deepEqual(third!.contributions, []);
});

test('property: no bytes make it throw', () => {
  assertNeverThrows((bytes) => decodeRoundList(network, bytes), encodeRoundList(draw(halves.slice(0, 2), 2)));
});
