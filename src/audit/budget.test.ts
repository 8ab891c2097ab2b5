import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { virtualClock } from '../../test/virtual-clock.ts';
import { createAuditBudget } from './budget.ts';

test('a duty waits until its share of time has gathered', async () => {
  const { clock, advance } = virtualClock();
  const budget = createAuditBudget({ clock, share: 0.1 });
  assert.equal(budget.dutiesPerHour(5), undefined);
  assert.equal(budget.waitMs(5), 0);
  budget.spent(1_000, 5);
  // 1 s is owed, and the next one will cost as much again.
  assert.equal(budget.waitMs(5), 20_000);
  assert.equal(budget.waitMs(10), 30_000);
  await advance(20_000);
  assert.equal(budget.waitMs(5), 0);
  assert.equal(budget.dutiesPerHour(5), 360);
});

test('a share of nothing never runs a second one; a duty larger than all savings runs all the same', async () => {
  const { clock, advance } = virtualClock();
  const none = createAuditBudget({ clock, share: 0 });
  none.spent(1, 1);
  assert.equal(none.waitMs(1), Number.POSITIVE_INFINITY);
  const budget = createAuditBudget({ clock, share: 0.5 });
  budget.spent(600_000, 5);
  await advance(3_600_000);
  assert.equal(budget.waitMs(5), 0);
});

test('property: whatever duties cost, their share of the time stays within the budget', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ cost: fc.nat(20_000), steps: fc.integer({ min: 1, max: 20 }) }), {
        minLength: 5,
        maxLength: 40,
      }),
      async (duties) => {
        const { clock, advance } = virtualClock();
        const budget = createAuditBudget({ clock, share: 0.1 });
        let total = 0;
        for (const { cost, steps } of duties) {
          const waitMs = budget.waitMs(steps);
          if (waitMs > 0) await advance(waitMs);
          // Before each duty begins all earlier ones are paid for.
          assert.ok(total <= 0.1 * clock.nowMs() + 1e-6);
          assert.equal(budget.waitMs(steps), 0);
          total += cost;
          budget.spent(cost, steps);
        }
      },
    ),
    { numRuns: 20 },
  );
});
