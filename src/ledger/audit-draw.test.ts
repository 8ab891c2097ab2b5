import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { hashOf } from '../../test/proof-world.ts';
import { type Candidate, drawAuditors, drawAudits, drawInterval } from './audit-draw.ts';

const candidates = (count: number, name: string, first = false): Candidate[] =>
  Array.from({ length: count }, (_, i) => {
    const duty = { prover: name, proof: i + 1, first, intervals: 4, drawAt: 3, interval: -1 };
    const rest = {
      auditors: [],
      tier: 0,
      dueAt: 0,
      dueMs: 0,
      commitments: [],
      reveals: [],
      reward: 1n,
      contribution: null,
    };
    return [`${name} ${i}`, { ...duty, ...rest }];
  });

test('the rate is met where the budget allows', () => {
  let drawn = 0;
  for (let block = 0; block < 100; block++) {
    const draw = drawAudits(hashOf(block), candidates(20, 'a'), { auditsPerBlockMax: 256 }, 200);
    assert.equal(draw.now.length + draw.passed.length, 20);
    assert.equal(draw.later.length, 0);
    drawn += draw.now.length;
  }
  // 2,000 draws of 0.2: mean 400, deviation 18.
  assert.ok(drawn > 340 && drawn < 460, String(drawn));
});

test('the budget bounds what is drawn, and the rate gives way', () => {
  let drawn = 0;
  for (let block = 0; block < 100; block++) {
    const draw = drawAudits(hashOf(block), candidates(100, 'a'), { auditsPerBlockMax: 4 }, 500);
    assert.ok(draw.now.length <= 4);
    assert.equal(draw.later.length, 0, 'whoever is not audited now need not keep evidence');
    drawn += draw.now.length;
  }
  assert.ok(drawn > 280 && drawn < 400, String(drawn));
});

test('first proofs are never passed over, and share the budget with the others', () => {
  const all = [...candidates(50, 'new', true), ...candidates(50, 'old')];
  let old = 0;
  for (let block = 0; block < 50; block++) {
    const draw = drawAudits(hashOf(block), all, { auditsPerBlockMax: 4 }, 500);
    assert.ok(draw.passed.every(([, duty]) => !duty.first));
    assert.equal(draw.now.length, 4);
    old += draw.now.filter(([, duty]) => !duty.first).length;
  }
  assert.ok(old > 60 && old <= 100, String(old));
});

test('no budget: nothing first is passed, and nothing is audited', () => {
  const all = [...candidates(3, 'new', true), ...candidates(3, 'old')];
  const draw = drawAudits(hashOf(1), all, { auditsPerBlockMax: 0 }, 1000);
  assert.deepEqual([draw.now.length, draw.later.length, draw.passed.length], [0, 3, 3]);
});

test('auditors are drawn by weight, once each', () => {
  const eligible = [
    ['a', 1],
    ['b', 1],
    ['c', 8],
    ['d', 0],
  ] as const;
  const counts = new Map<string, number>();
  for (let i = 0; i < 1000; i++) {
    const drawn = drawAuditors({ seed: hashOf(i), key: 'k', tier: 0, eligible, count: 2 });
    assert.equal(new Set(drawn).size, 2);
    counts.set(drawn[0]!, (counts.get(drawn[0]!) ?? 0) + 1);
  }
  assert.ok(counts.get('c')! > 740 && counts.get('c')! < 860);
  assert.equal(counts.get('d'), undefined);
  assert.equal(drawAuditors({ seed: hashOf(1), key: 'k', tier: 0, eligible, count: 9 }).length, 3);
  assert.deepEqual(drawAuditors({ seed: hashOf(1), key: 'k', tier: 0, eligible, count: -1 }), []);
});

test('property: intervals are in range, and all of them come', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 100 }), (intervals) => {
      const drawn = drawInterval(hashOf(intervals), 'k', intervals);
      assert.ok(Number.isInteger(drawn) && drawn >= 0 && drawn < intervals);
    }),
  );
  const seen = new Set(Array.from({ length: 100 }, (_, i) => drawInterval(hashOf(i), 'k', 4)));
  assert.equal(seen.size, 4);
});
