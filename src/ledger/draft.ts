/**
 * The ledger's state and changes to it. A state is read only; a draft is what a block or a single transaction does to
 * one, and is either kept whole or thrown away, so nothing is ever half applied.
 */
import type { TableName, Tables } from './tables.ts';

export interface LedgerView {
  get<Name extends TableName>(table: Name, key: string): Tables[Name] | undefined;
  /** Keys of a table with the prefix, sorted. */
  keys(table: TableName, prefix?: string): readonly string[];
}

export interface Draft extends LedgerView {
  put<Name extends TableName>(table: Name, key: string, row: Tables[Name]): void;
  delete(table: TableName, key: string): void;
}

/** One changed row; `row` is undefined when it is gone. */
export interface Change<Name extends TableName = TableName> {
  readonly table: Name;
  readonly key: string;
  readonly row: Tables[Name] | undefined;
}
