import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { accountRow, chainRow } from '../../bench/support/ledger-blocks.ts';
import { encodeCanonical } from '../std/codec.ts';
import { decodeRow, encodeRow, isTableName } from './row-codec.ts';
import type { AccountRow, EscrowRow, ProverRow } from './tables.ts';
import { tableNames } from './tables.ts';

const amount = fc.bigInt({ min: 0n, max: 2n ** 64n - 1n });

test('property: amounts of any size come back as amounts', () => {
  const rows = fc.record(
    {
      balance: amount,
      stake: amount,
      unbonding: fc.array(fc.tuple(amount, fc.maxSafeNat())),
      nonce: fc.maxSafeNat(),
    },
    { noNullPrototype: true },
  );
  fc.assert(
    fc.property(rows, (row: AccountRow) => {
      const bytes = encodeRow<'account'>(row);
      const decoded = decodeRow('account', bytes);
      assert.ok(decoded.ok);
      assert.deepEqual(decoded.value, row);
      assert.deepEqual(encodeRow<'account'>(decoded.value), bytes);
    }),
  );
});

test('amounts inside tuples and beside other fields are found in every table that has some', () => {
  const prover = { bond: 7n, vesting: [[3, 5n]], proofs: 3 } as unknown as ProverRow;
  const escrow: EscrowRow = { payer: 'a', payee: 'b', amount: 9n, claimed: 0n, expiresMs: 4 };
  for (const [table, row] of [
    ['chain', chainRow(7)],
    ['account', accountRow(1n)],
    ['prover', prover],
    ['escrow', escrow],
  ] as const) {
    const decoded = decodeRow(table, encodeRow(row));
    assert.ok(decoded.ok);
    assert.deepEqual(decoded.value, row);
  }
});

test('a row without its amounts, or no row at all, is malformed', () => {
  const wrong = [
    null,
    [],
    7,
    {},
    { balance: -1, stake: 0, unbonding: [] },
    { balance: 1.5, stake: 0, unbonding: [] },
    { balance: '1', stake: 0, unbonding: [] },
    { balance: 1, stake: 0, unbonding: 5 },
    { balance: 1, stake: 0, unbonding: [[]] },
  ];
  for (const value of wrong) {
    const decoded = decodeRow('account', encodeCanonical(value as never));
    assert.equal(!decoded.ok && decoded.code, 'malformed-row', JSON.stringify(value));
  }
  fc.assert(fc.property(fc.uint8Array(), (bytes) => void decodeRow('chain', bytes)));
});

test('tables are known by name', () => {
  for (const name of tableNames) assert.ok(isTableName(name));
  for (const name of ['', 'accounts', 'toString', 3, null]) assert.ok(!isTableName(name));
});
