/** The ledger's rows as plain maps, without root or history: enough for rules, and quick for many thousand proofs. */
import type { Draft } from '../../src/ledger/draft.ts';
import { type TableName, type Tables, tableNames } from '../../src/ledger/tables.ts';

export type Rows = Draft;

export function createRows(): Rows {
  const tables = new Map(tableNames.map((name) => [name, new Map<string, Tables[TableName]>()]));
  const sorted = new Map<TableName, readonly string[]>();
  return {
    get: <Name extends TableName>(table: Name, key: string) =>
      tables.get(table)!.get(key) as Tables[Name] | undefined,
    keys: (table, prefix = '') => {
      const keys = sorted.get(table) ?? [...tables.get(table)!.keys()].sort();
      sorted.set(table, keys);
      return prefix === '' ? keys : keys.filter((key) => key.startsWith(prefix));
    },
    put: (table, key, row) => {
      if (!tables.get(table)!.has(key)) sorted.delete(table);
      tables.get(table)!.set(key, row);
    },
    delete: (table, key) => {
      if (tables.get(table)!.delete(key)) sorted.delete(table);
    },
  };
}
