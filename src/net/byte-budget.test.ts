import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createByteBudget } from './byte-budget.ts';

test('holds so much for each and so much for all, and gives back once', () => {
  const budget = createByteBudget(100, 150);
  const first = budget.take('a', 60);
  assert.ok(first);
  assert.equal(budget.take('a', 41), null);
  assert.ok(budget.take('a', 40));
  assert.equal(budget.take('b', 51), null);
  assert.ok(budget.take('b', 50));
  first();
  first();
  assert.equal(budget.take('b', 51), null, 'over its own bound');
  assert.ok(budget.take('a', 60));
  assert.equal(budget.take('c', 1), null, 'over the bound for all');
  assert.ok(budget.take('c', 0));
});
