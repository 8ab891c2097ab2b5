/** Made-up ledger blocks, for measuring and testing what keeps them: each changes a few rows, and says so in the chain row. */
import type { Change } from '../../src/ledger/draft.ts';
import { encodeRow } from '../../src/ledger/row-codec.ts';
import type { LedgerHead, NewBlock } from '../../src/ledger/store.ts';
import type { AccountRow, ChainRow } from '../../src/ledger/tables.ts';
import { concatBytes, toHex, utf8 } from '../../src/std/bytes.ts';
import { sha256, sha256Hex } from '../../src/std/hash.ts';

export const hashNamed = (name: string) => sha256(utf8(name));

/** Node id of a made-up account. */
export const accountNamed = (index: number) => sha256Hex(utf8(`account ${index}`));

export function chainRow(number: number): ChainRow {
  return {
    number,
    hash: hashNamed(`block ${number}`),
    timeMs: 1_700_000_000_000 + 1000 * number,
    minted: 10n ** 15n + BigInt(number),
    burned: BigInt(number),
    seeds: [hashNamed(`seed ${number}`)],
    epoch: Math.floor(number / 100),
    epochStartMs: 0,
    voters: [[accountNamed(0), 1]],
    bonded: 2n ** 60n,
    provers: 3,
  };
}

export function accountRow(balance: bigint, nonce = 0): AccountRow {
  return { balance, stake: 0n, unbonding: [[5n, 1_700_000_000_000]], nonce };
}

export function headAt(number: number): LedgerHead {
  return {
    number,
    hash: hashNamed(`block ${number}`),
    height: 3 * number,
    epoch: Math.floor(number / 100),
    stateRoot: hashNamed(`state ${number}`),
  };
}

/** Rows before the first block. */
export function genesisRows(accounts = 3): Change[] {
  const rows: Change[] = Array.from({ length: accounts }, (_, index) => ({
    table: 'account',
    key: accountNamed(index),
    row: accountRow(1000n),
  }));
  return [...rows, { table: 'chain', key: '', row: chainRow(0) }];
}

export interface MadeBlock {
  readonly block: NewBlock;
  readonly changes: readonly Change[];
}

/** Block `number` with `transactions` transfers from account i to account i + 1; every third one is a stake. */
export function madeBlock(number: number, transactions = 3, accounts = 50): MadeBlock {
  const changed = new Map<string, AccountRow>();
  const entries = Array.from({ length: transactions }, (_, index) => {
    const from = accountNamed((number + index) % accounts);
    const to = accountNamed((number + index + 1) % accounts);
    changed.set(from, accountRow(BigInt(number * 1000 + index), number));
    changed.set(to, accountRow(BigInt(number * 2000 + index)));
    const kind = index % 3 === 2 ? 'stake' : 'transfer';
    return { id: hashNamed(`transaction ${number}/${index}`), kind, accounts: [from, to] };
  });
  const payload = concatBytes(
    ...entries.map(({ id }) => concatBytes(id, new Uint8Array(168))),
    utf8(`${number}`),
  );
  const block: NewBlock = {
    ...headAt(number),
    timeMs: 1_700_000_000_000 + 1000 * number,
    proposer: accountNamed(number % 4),
    payload,
    certificate: number % 2 === 0 ? hashNamed(`certificate ${number}`) : null,
    transactions: entries,
  };
  const rows: Change[] = [...changed].map(([key, row]) => ({ table: 'account', key, row }));
  rows.push({
    table: 'slash',
    key: `${number}/0`,
    row: { node: accountNamed(1), reason: 'x', amount: 1n, reporter: null },
  });
  // Rows go, too.
  if (number > 1) rows.push({ table: 'slash', key: `${number - 1}/0`, row: undefined });
  rows.push({ table: 'chain', key: '', row: chainRow(number) });
  return { block, changes: rows };
}

/** The rows as one text, for comparing states; a row's fields have no order. */
export function stateText(rows: readonly Change[]): string {
  return rows.map(({ table, key, row }) => `${table} ${key} ${row ? toHex(encodeRow(row)) : ''}`).join('\n');
}
