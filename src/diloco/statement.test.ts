import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { assertNeverThrows } from '../../test/fuzz.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { utf8 } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { sha256, sha256Hex } from '../std/hash.ts';
import {
  createStatementBook,
  decodeStatement,
  makeStatement,
  type Statement,
  statementBytesMax,
  statementFields,
} from './statement.ts';

const network = sha256(utf8('a network'));
const key = keyPairFrom(sha256(utf8('a member')));
const hashA = sha256Hex(utf8('state a'));
const hashB = sha256Hex(utf8('state b'));

const ids = ['m0', 'm1', 'm2', 'm3'];
const bookOf = (weights = [1, 1, 1, 1]) =>
  createStatementBook(weights.map((weight, i) => ({ nodeId: ids[i]!, weight })));
/** As if its signature had been verified. */
const said = (member: number, round: number, stateHash: string): Statement => ({
  round,
  stage: 0,
  stateHash,
  nodeId: ids[member] ?? 'stranger',
  publicKey: key.publicKey,
  signature: new Uint8Array(64),
});
const codeOf = (outcome: { ok: true } | { ok: false; code: string }) =>
  outcome.ok ? 'accepted' : outcome.code;

test('what is encoded is what is decoded; every field is signed, and so is the network', () => {
  const one = makeStatement(network, { round: 12, stage: 2, stateHash: hashA }, key);
  const bytes = encodeCanonical(statementFields(one));
  assert.ok(bytes.length <= statementBytesMax);
  const decoded = decodeStatement(network, bytes);
  assert.ok(decoded.ok);
  assert.deepEqual(decoded.value, one);
  for (const forged of [
    { ...one, round: 13 },
    { ...one, stage: 0 },
    { ...one, stateHash: hashB },
    { ...one, publicKey: keyPairFrom(sha256(utf8('another'))).publicKey },
  ])
    assert.equal(codeOf(decodeStatement(network, encodeCanonical(statementFields(forged)))), 'bad-signature');
  assert.equal(codeOf(decodeStatement(sha256(utf8('elsewhere')), bytes)), 'bad-signature');
  assert.equal(codeOf(decodeStatement(network, encodeCanonical([1, 2, 3]))), 'malformed-statement');
  assert.equal(codeOf(decodeStatement(network, new Uint8Array(statementBytesMax + 1))), 'too-large');
  assertNeverThrows((message) => decodeStatement(network, message), bytes);
});

test('a hash is agreed with more than a third of the weight, and more than any other', () => {
  const book = bookOf();
  assert.equal(codeOf(book.add(said(0, 5, hashA))), 'accepted');
  assert.equal(book.agreed(5), undefined);
  book.add(said(1, 5, hashA));
  assert.equal(book.agreed(5), hashA);
  book.add(said(2, 5, hashB));
  assert.equal(book.agreed(5), hashA);
  book.add(said(3, 5, hashB));
  assert.equal(book.agreed(5), undefined, 'two and two: nobody knows');
  const weighted = bookOf([3, 1, 1, 1]);
  weighted.add(said(0, 1, hashA));
  assert.equal(weighted.agreed(1), hashA, 'half of the weight');
  const exact = bookOf([1, 1, 1]);
  exact.add(said(0, 1, hashA));
  assert.equal(exact.agreed(1), undefined, 'exactly a third is not more than a third');
});

test('small cohorts: one speaks for itself, two for each other, of three it takes two', () => {
  const alone = bookOf([1]);
  alone.add(said(0, 1, hashA));
  assert.equal(alone.agreed(1), hashA);
  const pair = bookOf([1, 1]);
  pair.add(said(0, 1, hashA));
  assert.equal(pair.agreed(1), hashA, 'so one that lies is believed until the other speaks');
  pair.add(said(1, 1, hashB));
  assert.equal(pair.agreed(1), undefined);
  const three = bookOf([1, 1, 1]);
  three.add(said(0, 1, hashB));
  three.add(said(1, 1, hashA));
  assert.equal(three.agreed(1), undefined);
  three.add(said(2, 1, hashA));
  assert.equal(three.agreed(1), hashA, 'whatever the third says');
});

test('strangers, equivocation, stale and absurd rounds are refused and change nothing', () => {
  const book = bookOf();
  for (const member of [0, 1, 2]) book.add(said(member, 10, hashA));
  const before = () => [book.newest(), book.of(10), book.of(11)];
  const known = before();
  assert.equal(codeOf(book.add(said(9, 10, hashB))), 'not-a-member');
  assert.equal(codeOf(book.add(said(0, 10, hashB))), 'equivocation');
  assert.equal(codeOf(book.add(said(3, 6, hashB))), 'stale-statement');
  assert.equal(codeOf(book.add(said(3, 10 + 2_000_000, hashB))), 'future-statement');
  assert.deepEqual(before(), known);
  assert.equal(codeOf(book.add(said(0, 10, hashA))), 'accepted', 'saying the same again is no lie');
  assert.deepEqual(before(), known);
});

test('one member that runs ahead moves nobody, and old rounds are forgotten', () => {
  const book = bookOf();
  for (let round = 0; round < 500; round++) book.add(said(3, 1000 + round, hashB));
  assert.equal(book.newest(), undefined);
  let kept = 0;
  for (let round = 0; round < 2000; round++) kept += book.of(round).length;
  assert.ok(kept <= 4, `${kept} statements of one member kept`);
  for (let round = 0; round < 50; round++)
    for (const member of [0, 1, 2]) book.add(said(member, round, sha256Hex(utf8(`${round}`))));
  assert.deepEqual(book.newest(), { round: 49, stateHash: sha256Hex(utf8('49')) });
  assert.deepEqual(book.of(45), []);
  assert.equal(book.of(46).length, 3);
});

test('property: less than a third of lying weight never makes a hash agreed, in any order', () => {
  const event = fc.record({ member: fc.nat(3), round: fc.nat(6) });
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      const book = bookOf();
      for (const { member, round } of events) {
        // Member 3 lies; the others state what is right for the round.
        const right = sha256Hex(utf8(`${round}`));
        book.add(said(member, round, member === 3 ? hashB : right));
        const newest = book.newest();
        if (newest) assert.equal(newest.stateHash, sha256Hex(utf8(`${newest.round}`)));
      }
    }),
  );
});
