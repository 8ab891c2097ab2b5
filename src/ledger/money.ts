/**
 * NEURO in rows: how it moves, where it is, and the law that none comes or goes unnoticed: minted − burned is the sum of
 * all amounts in rows. Whoever takes an amount from one row must put it into another, or burn it. Knows no transaction.
 */
import { assert, must } from '../std/assert.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { Change, Draft, LedgerView } from './draft.ts';
import type { AccountRow, Amount, ChainRow, TableName, Tables } from './tables.ts';

/** More than this is never in being: it fits the codec's integers with room to spare. */
export const supplyMax: Amount = 2n ** 63n - 1n;

const noAccount: AccountRow = { balance: 0n, stake: 0n, unbonding: [], nonce: 0 };

export function accountOf(view: LedgerView, nodeId: string): AccountRow {
  return view.get('account', nodeId) ?? noAccount;
}

export function chainOf(view: LedgerView): ChainRow {
  return must(view.get('chain', ''), 'a state without a chain row');
}

/** Puts an amount that was taken elsewhere, or minted, into a balance. */
export function credit(draft: Draft, nodeId: string, amount: Amount): void {
  if (amount === 0n) return;
  const account = accountOf(draft, nodeId);
  draft.put('account', nodeId, { ...account, balance: account.balance + amount });
}

/** Takes an amount from a balance, for the caller to put elsewhere: `overdrawn`. */
export function debit(draft: Draft, nodeId: string, amount: Amount): Outcome<void> {
  const account = accountOf(draft, nodeId);
  if (account.balance < amount) return reject('overdrawn', `${account.balance} of ${amount} micro-NEURO`);
  draft.put('account', nodeId, { ...account, balance: account.balance - amount });
  return accept(undefined);
}

/**
 * Counts a new amount, for the caller to put into a row. The result is what there really is to put: less than asked for
 * only when the network's policy has minted as much as there can ever be.
 */
export function mint(draft: Draft, amount: Amount): Amount {
  const chain = chainOf(draft);
  const room = supplyMax - chain.minted;
  const minted = amount < room ? amount : room;
  draft.put('chain', '', { ...chain, minted: chain.minted + minted });
  return minted;
}

/** Counts an amount as gone that the caller took from a row. */
export function burn(draft: Draft, amount: Amount): void {
  const chain = chainOf(draft);
  draft.put('chain', '', { ...chain, burned: chain.burned + amount });
}

/** ⌊amount × permille / 1000⌋. */
export function shareOf(amount: Amount, permille: number): Amount {
  return (amount * BigInt(permille)) / 1000n;
}

/** Numbers as keys, in their order. */
export function numberKey(value: number): string {
  return String(value).padStart(12, '0');
}

/** The amounts that a row holds; a sum of them is money, each by itself is never negative. */
const amountsIn: { readonly [Name in TableName]: (row: Tables[Name]) => readonly Amount[] } = {
  account: ({ balance, stake, unbonding }) => [balance, stake, ...unbonding.map(([amount]) => amount)],
  member: () => [],
  prover: ({ vesting, bond }) => [bond, ...vesting.map(([, amount]) => amount)],
  seen: () => [],
  round: () => [],
  duty: ({ reward }) => [reward],
  escrow: ({ amount, claimed }) => [amount - claimed],
  slash: () => [],
  chain: () => [],
};

export function moneyIn<Name extends TableName>(table: Name, row: Tables[Name] | undefined): Amount {
  if (!row) return 0n;
  let sum = 0n;
  for (const amount of amountsIn[table](row)) {
    assert(amount >= 0n, `a negative amount in ${table}`);
    sum += amount;
  }
  return sum;
}

/** All money in the rows: minted − burned, by the law. Reads every row. */
export function moneyInAll(view: LedgerView): Amount {
  let sum = 0n;
  for (const table of ['account', 'prover', 'duty', 'escrow'] as const) {
    for (const key of view.keys(table)) sum += moneyIn(table, view.get(table, key));
  }
  return sum;
}

/** Throws AssertionError when changes to a state make or lose money: a bug, for rules never do. */
export function assertSupply(before: LedgerView, changes: readonly Change[]): void {
  let difference = 0n;
  let counted = 0n;
  for (const { table, key, row } of changes) {
    const old = before.get(table, key);
    difference += moneyIn(table, row) - moneyIn(table, old);
    if (table !== 'chain') continue;
    const [now, then] = [row as ChainRow, old as ChainRow];
    counted += now.minted - now.burned - (then.minted - then.burned);
    assert(now.minted >= then.minted && now.burned >= then.burned, 'minted or burned went back');
  }
  assert(difference === counted, `rows changed by ${difference}, minted less burned by ${counted}`);
}
