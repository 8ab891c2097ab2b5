import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { supplyMax } from './money.ts';
import { formatNeuro, parseNeuro } from './neuro.ts';

test('property: what is written is read back', () => {
  fc.assert(
    fc.property(fc.bigInt({ min: 1n, max: supplyMax }), (amount) => {
      const parsed = parseNeuro(formatNeuro(amount));
      assert.ok(parsed.ok);
      assert.equal(parsed.value, amount);
    }),
  );
});

test('amounts as people write them', () => {
  for (const [text, amount] of [
    ['1', 1_000_000n],
    ['0.5', 500_000n],
    ['12.000001', 12_000_001n],
    ['007.10', 7_100_000n],
    ['9223372036854.775807', supplyMax],
  ] as const) {
    const parsed = parseNeuro(text);
    assert.equal(parsed.ok && parsed.value, amount, text);
  }
  assert.deepEqual([0n, 1n, 1_000_000n, 1_500_000n, -10n, 123_456_789n].map(formatNeuro), [
    '0',
    '0.000001',
    '1',
    '1.5',
    '-0.00001',
    '123.456789',
  ]);
});

test('anything else is refused, never rounded', () => {
  for (const [text, code] of [
    ['', 'bad-amount'],
    ['-1', 'bad-amount'],
    ['+1', 'bad-amount'],
    ['1.', 'bad-amount'],
    ['.5', 'bad-amount'],
    ['1e3', 'bad-amount'],
    ['1,5', 'bad-amount'],
    ['1 000', 'bad-amount'],
    ['0x10', 'bad-amount'],
    ['NaN', 'bad-amount'],
    ['١', 'bad-amount'],
    ['1.0000000', 'bad-amount'],
    ['0.0000001', 'bad-amount'],
    ['0', 'zero-amount'],
    ['0.000000', 'zero-amount'],
    ['9223372036854.775808', 'amount-too-large'],
    ['9'.repeat(40), 'amount-too-large'],
    ['9'.repeat(400), 'bad-amount'],
  ] as const) {
    const parsed = parseNeuro(text);
    assert.equal(!parsed.ok && parsed.code, code, text);
  }
});
