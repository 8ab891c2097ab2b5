import assert from 'node:assert/strict';
import { test } from 'node:test';
import { divide, priceOf, stagePrices } from './price.ts';

const policy = { driverShare: 150, validatorShare: 150, tokenPrice: 2_000 };

test('a path is paid 15 / 70 / 15, Workers alike, and all of the price is there', () => {
  assert.deepEqual(stagePrices(1, policy), [2_000n]);
  assert.deepEqual(stagePrices(2, policy), [1_000n, 1_000n]);
  assert.deepEqual(stagePrices(3, policy), [300n, 1_400n, 300n]);
  assert.deepEqual(stagePrices(5, policy), [302n, 466n, 466n, 466n, 300n]);
  for (const tokenPrice of [0, 1, 7, 999, 2_001])
    for (const stages of [1, 2, 3, 4, 7]) {
      const prices = stagePrices(stages, { ...policy, tokenPrice });
      assert.equal(
        prices.reduce((a, b) => a + b),
        BigInt(tokenPrice),
      );
      assert.ok(prices.every((price) => price >= 0n));
    }
});

test('a policy that gives away more than there is divides what there is', () => {
  assert.deepEqual(divide(100n, 3, { driverShare: 800, validatorShare: 800 }), {
    driver: 80n,
    worker: 0n,
    validator: 20n,
  });
});

test('clients pay whole micro-NEURO, rounded up', () => {
  assert.equal(priceOf(1, policy), 2n);
  assert.equal(priceOf(1, { tokenPrice: 1 }), 1n);
  assert.equal(priceOf(1_001, { tokenPrice: 1 }), 2n);
  assert.equal(priceOf(5, { tokenPrice: 0 }), 0n);
});
