import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ledgerConstants } from '../../test/ledger-world.ts';
import { defaultLedgerPolicy } from './policy.ts';
import { log2Fixed, proofReward, scarcityBonus, stakeMultiplier } from './reward.ts';

const thousand = 1_000_000_000n;

test('the logarithm is exact at powers of two and within 2^-30 elsewhere', () => {
  for (let power = 0n; power < 20n; power++) assert.equal(log2Fixed(1n << power, 1n), power << 32n);
  fc.assert(
    fc.property(fc.bigInt({ min: 1n, max: 2n ** 50n }), fc.bigInt({ min: 1n, max: 2n ** 50n }), (a, b) => {
      const [high, low] = a > b ? [a, b] : [b, a];
      const exact = Math.log2(Number(high) / Number(low));
      assert.ok(Math.abs(Number(log2Fixed(high, low)) / 2 ** 32 - exact) < 2 ** -30);
    }),
  );
});

test('multipliers of stake, in millionths', () => {
  const vectors: readonly (readonly [bigint, bigint])[] = [
    [0n, 1_000_000n],
    [thousand, 1_100_000n],
    [3n * thousand, 1_200_000n],
    [7n * thousand, 1_300_000n],
    // 1 + 0.1·log2(1.5) = 1.05849625…, 1 + 0.1·log2(1001) = 1.99672262…
    [thousand / 2n, 1_058_496n],
    [1000n * thousand, 1_996_722n],
  ];
  for (const [stake, expected] of vectors) assert.equal(stakeMultiplier(stake), expected);
});

test('property: more stake never earns less', () => {
  const stakes = fc.bigInt({ min: 0n, max: 2n ** 62n });
  fc.assert(
    fc.property(stakes, stakes, (a, b) => {
      const [less, more] = a < b ? [a, b] : [b, a];
      assert.ok(stakeMultiplier(less) <= stakeMultiplier(more));
    }),
  );
});

test('scarcity falls linearly from a single replica to nothing at those wanted', () => {
  const bonus = [0, 1, 2, 3, 9].map((replicas) => scarcityBonus(defaultLedgerPolicy, replicas));
  assert.deepEqual(bonus, [500, 500, 250, 0, 0]);
  assert.equal(scarcityBonus({ ...defaultLedgerPolicy, replicasWanted: 1 }, 1), 0);
});

test('the reward is the product of its factors, rounded down once', () => {
  const constants = { ...ledgerConstants(), stageLayers: [1, 2, 1] };
  const body = (stage: number) => ({ batches: 7, stage, hasEmbedding: stage === 0, hasHead: stage === 2 });
  const pay = (stage: number, stake = 0n, replicas = 3) =>
    proofReward(constants, { body: body(stage), stake, replicas });
  assert.equal(pay(0), 21_000n); // 70,000 / 4 · 1.2
  assert.equal(pay(1), 35_000n);
  assert.equal(pay(2), 22_750n);
  assert.equal(pay(1, thousand), 38_500n);
  assert.equal(pay(1, thousand, 1), 57_750n);
  assert.equal(pay(1, thousand / 2n, 2), 46_309n); // 35,000 · 1.058496 · 1.25 = 46,309.2
});
