import assert from 'node:assert/strict';
import { test } from 'node:test';
import { historyText } from './wallet-text.ts';

const [payer, payee, id] = ['aa'.repeat(32), 'bb'.repeat(32), 'cc'.repeat(32)] as const;
const place = { nonce: 1, block: 3, index: 0, timeMs: 1_800_000_000_000, id: 'dd'.repeat(32) };

test('a history shows escrows, claims and refunds, from either side', () => {
  const transactions = [
    { ...place, kind: 'refund', author: payer, body: { escrow: id } },
    { ...place, kind: 'claim', author: payee, body: { escrow: id, amount: '250000', driver: payee } },
    { ...place, kind: 'escrow', author: payer, body: { payee, amount: '1000000', expiresMs: 5 } },
  ];
  const shown = (address: string) =>
    historyText(address, { transactions, next: null })
      .split('\n')
      .map((line) => line.replace(/ +/g, ' ').trim().split(' ').slice(2, -1).join(' '));
  assert.deepEqual(shown(payer), [
    `refund of ${'c'.repeat(16)}`,
    `claim 0.25 of ${'c'.repeat(16)}`,
    `escrow 1 for ${'b'.repeat(16)}`,
  ]);
  assert.equal(shown(payee)[2], `escrow 1 by ${'a'.repeat(16)}`);
});
