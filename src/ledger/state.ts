/**
 * The ledger's state in memory: a map for each table, the keys in order, and the tree that gives its root. A draft lies
 * over it, or over another draft, and holds what changed. Knows no rules and no disk.
 */
import type { Change, Draft, LedgerView } from './draft.ts';
import { encodeRow } from './row-codec.ts';
import { createStateTree, type RowProof } from './state-tree.ts';
import { type TableName, type Tables, tableNames } from './tables.ts';

export interface LedgerState extends LedgerView {
  /** Merkle root over all rows, 32 bytes. */
  root(): Uint8Array;
  /** That a row is here as it is, or that there is none: for `verifyRowProof` and the row's `encodeRow`. */
  prove(table: TableName, key: string): RowProof;
}

export interface ChangeDraft extends Draft {
  /** What differs from the view below, in order of table and key. */
  changes(): Change[];
}

type AnyRow = Tables[TableName];

interface StateInside extends LedgerState {
  take(changes: Iterable<Change>): void;
}

/** A state of these rows; changes are what a store or a snapshot holds. */
export function createState(rows: Iterable<Change> = []): LedgerState {
  const tables = perTable(() => new Map<string, AnyRow>());
  const sorted = perTable((): readonly string[] => []);
  const tree = createStateTree();
  const state: StateInside = {
    get: <Name extends TableName>(table: Name, key: string) =>
      tables[table].get(key) as Tables[Name] | undefined,
    keys: (table, prefix = '') => keysWith(sorted[table], prefix),
    root: () => tree.root(),
    prove: (table, key) => tree.prove(table, key),
    take: (changes) => {
      const changed = perTable(() => new Map<string, AnyRow | undefined>());
      for (const { table, key, row } of changes) {
        changed[table].set(key, row);
        tree.set(table, key, row && encodeRow(row));
      }
      for (const name of tableNames) {
        // A new list, never the old one changed: whoever holds one may be walking through it.
        sorted[name] = mergeKeys(sorted[name], tables[name], changed[name], '');
        for (const [key, row] of changed[name]) {
          if (row) tables[name].set(key, row);
          else tables[name].delete(key);
        }
      }
    },
  };
  state.take(rows);
  return state;
}

/** Makes the changes the state's own. All of a block's together: nobody sees a state between. */
export function commit(state: LedgerState, changes: Iterable<Change>): void {
  (state as StateInside).take(changes);
}

export function createDraft(view: LedgerView): ChangeDraft {
  const changed = new Map<TableName, Map<string, AnyRow | undefined>>();
  const note = (table: TableName, key: string, row: AnyRow | undefined) => {
    const rows = changed.get(table);
    if (rows) rows.set(key, row);
    else changed.set(table, new Map([[key, row]]));
  };
  return {
    get: <Name extends TableName>(table: Name, key: string) => {
      const rows = changed.get(table);
      return (rows?.has(key) ? rows.get(key) : view.get(table, key)) as Tables[Name] | undefined;
    },
    keys: (table, prefix = '') => {
      const below = view.keys(table, prefix);
      const rows = changed.get(table);
      if (!rows) return below;
      const known = { has: (key: string) => view.get(table, key) !== undefined };
      return mergeKeys(below, known, rows, prefix);
    },
    put: (table, key, row) => note(table, key, row),
    delete: (table, key) => note(table, key, undefined),
    changes: () => {
      const all: Change[] = [];
      for (const table of tableNames) {
        const rows = changed.get(table);
        if (!rows) continue;
        for (const key of [...rows.keys()].sort()) {
          const row = rows.get(key);
          if (row || view.get(table, key)) all.push({ table, key, row });
        }
      }
      return all;
    },
  };
}

export function putAll(draft: Draft, changes: Iterable<Change>): void {
  for (const { table, key, row } of changes) {
    if (row) draft.put(table, key, row);
    else draft.delete(table, key);
  }
}

function perTable<Value>(make: () => Value): Record<TableName, Value> {
  return Object.fromEntries(tableNames.map((name) => [name, make()])) as Record<TableName, Value>;
}

/** Those of a sorted list that begin with the prefix. */
function keysWith(keys: readonly string[], prefix: string): readonly string[] {
  if (prefix === '') return keys;
  let low = 0;
  for (let high = keys.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < prefix) low = middle + 1;
    else high = middle;
  }
  let end = low;
  while (end < keys.length && keys[end]!.startsWith(prefix)) end += 1;
  return keys.slice(low, end);
}

/** The sorted keys after changes to what is known; the same list where none came or went. */
function mergeKeys(
  below: readonly string[],
  known: { has(key: string): boolean },
  changed: ReadonlyMap<string, AnyRow | undefined>,
  prefix: string,
): readonly string[] {
  const added: string[] = [];
  let gone = 0;
  for (const [key, row] of changed) {
    if (!key.startsWith(prefix)) continue;
    const wasHere = known.has(key);
    if (row && !wasHere) added.push(key);
    if (!row && wasHere) gone += 1;
  }
  if (added.length === 0 && gone === 0) return below;
  const kept = gone === 0 ? below : below.filter((key) => !changed.has(key) || changed.get(key));
  // Two sorted runs: the sort merges them in linear time.
  return [...kept, ...added.sort()].sort();
}
