/**
 * Rows of the ledger's state as canonical bytes, and back. The codec has one kind of integer, so a reader must know which
 * fields are amounts: that is here. Whether a row is the right one, only the state root can say.
 */
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Amount, type TableName, type Tables, tableNames } from './tables.ts';

/** A round's row names every contribution of every stage: the largest there is. */
export const rowBytesMax = 4 * 1024 * 1024;

type AmountFields<Row> = {
  [Field in keyof Row as Row[Field] extends Amount ? Field : never]: 'amount';
};
/** Lists of tuples with an amount in them, by the amount's place in the tuple. */
type AmountLists<Row> = {
  [Field in keyof Row as Row[Field] extends readonly (readonly (infer Item)[])[]
    ? Amount extends Item
      ? Field
      : never
    : never]: number;
};

/** Every amount of every table: one that is forgotten does not compile. */
const amounts: { readonly [Name in TableName]: AmountFields<Tables[Name]> & AmountLists<Tables[Name]> } = {
  account: { balance: 'amount', stake: 'amount', unbonding: 0 },
  member: {},
  prover: { bond: 'amount', vesting: 1 },
  seen: {},
  round: {},
  duty: { reward: 'amount' },
  escrow: { amount: 'amount', claimed: 'amount' },
  slash: { amount: 'amount' },
  chain: { minted: 'amount', burned: 'amount', bonded: 'amount' },
};

export function isTableName(name: unknown): name is TableName {
  return (tableNames as readonly unknown[]).includes(name);
}

export function encodeRow<Name extends TableName>(row: Tables[Name]): Uint8Array {
  // Interfaces have no index signature, but rows are plain objects of canonical values.
  return encodeCanonical(row as unknown as Canonical);
}

/** Decodes a row that may be damaged: `malformed-row`, and the codec's codes. */
export function decodeRow<Name extends TableName>(table: Name, encoded: Uint8Array): Outcome<Tables[Name]> {
  const decoded = decodeCanonical(encoded, rowBytesMax);
  if (!decoded.ok) return decoded;
  const row = decoded.value;
  if (typeof row !== 'object' || row === null || Array.isArray(row) || row instanceof Uint8Array)
    return reject('malformed-row', `${table}: no fields`);
  const revived: Record<string, unknown> = { ...row };
  for (const [field, place] of Object.entries<'amount' | number>(amounts[table])) {
    const value = place === 'amount' ? amountOf(revived[field]) : amountsOf(revived[field], place);
    if (value === undefined) return reject('malformed-row', `${table}: ${field}`);
    revived[field] = value;
  }
  return accept(revived as unknown as Tables[Name]);
}

function amountOf(value: unknown): Amount | undefined {
  const isInteger = typeof value === 'bigint' || Number.isSafeInteger(value);
  return isInteger && (value as number | bigint) >= 0 ? BigInt(value as number | bigint) : undefined;
}

function amountsOf(list: unknown, place: number): unknown[] | undefined {
  if (!Array.isArray(list)) return undefined;
  const revived: unknown[] = [];
  for (const item of list as unknown[]) {
    const amount = Array.isArray(item) ? amountOf(item[place]) : undefined;
    if (amount === undefined) return undefined;
    revived.push((item as unknown[]).with(place, amount));
  }
  return revived;
}
