import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { membersOf, testKeys } from '../../test/consensus-group.ts';
import { CodedError } from '../std/outcome.ts';
import { includesHonest, isQuorum, leaderOf, memberSet, toleratedFailures } from './members.ts';

const equal = (count: number) => Array.from({ length: count }, () => ({ weight: 1 }));

test('one to three equal members tolerate none, four one, seven two', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5, 6, 7, 10].map((count) => toleratedFailures(equal(count))),
    [0, 0, 0, 1, 1, 1, 2, 3],
  );
});

test('weight counts, not heads', () => {
  assert.equal(toleratedFailures([{ weight: 10 }, { weight: 1 }, { weight: 1 }, { weight: 1 }]), 0);
  assert.equal(toleratedFailures([{ weight: 2 }, { weight: 2 }, { weight: 2 }, { weight: 1 }]), 1);
});

test('two quorums always share more than the tolerated weight, and the honest are a quorum', () => {
  const weights = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 9 });
  const keys = testKeys(9);
  fc.assert(
    fc.property(weights, fc.nat(511), fc.nat(511), fc.nat(511), (list, a, b, hostile) => {
      const members = memberSet(membersOf(keys.slice(0, list.length), list), 9);
      const weightOf = (set: number) => list.reduce((sum, one, i) => sum + (set & (1 << i) ? one : 0), 0);
      const tolerated = 3 * weightOf(hostile) < members.weight;
      if (isQuorum(members, weightOf(a)) && isQuorum(members, weightOf(b))) {
        assert.ok(includesHonest(members, weightOf(a & b)));
        if (tolerated) assert.ok(weightOf(a & b & ~hostile) > 0, 'an honest member is in both');
      }
      if (tolerated) assert.ok(isQuorum(members, members.weight - weightOf(hostile)));
    }),
  );
});

test('every member leads in turn', () => {
  const members = memberSet(membersOf(testKeys(4)), 9);
  assert.deepEqual(
    [1, 2, 3, 4, 5].map((height) => leaderOf(members, height)),
    [1, 2, 3, 0, 1],
  );
});

test('a wrong member list is one clear error', () => {
  const keys = testKeys(3);
  const wrong = [
    [],
    membersOf([keys[0]!, keys[0]!]),
    membersOf(keys, [1, 0, 1]),
    membersOf(keys, [1, 1.5, 1]),
    membersOf(keys, [Number.MAX_SAFE_INTEGER, 1, 1]),
    membersOf(keys).map((member) => ({ ...member, publicKey: new Uint8Array(32) })),
  ];
  for (const list of wrong) assert.throws(() => memberSet(list, 3), CodedError);
  assert.throws(() => memberSet(membersOf(keys), 2), CodedError);
});
