/**
 * Entry of the ledger's thread: SQLite's calls block, and a commit waits for the disk, so they are made here and not on
 * the I/O thread. Answers calls in order; ends when the ledger is closed. Started by `ledger-database.ts` only.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { must } from '../../std/assert.ts';
import { CodedError } from '../../std/outcome.ts';
import { type LedgerPlace, type LedgerSql, openLedgerSql } from './ledger-sql.ts';
import { installNodeSha256 } from './sha256.ts';

export type LedgerMethod = keyof LedgerSql;

export interface LedgerCall {
  readonly id: number;
  readonly method: LedgerMethod;
  readonly parameters: readonly unknown[];
}

export interface LedgerReply {
  /** 0 answers the opening. */
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly code: string | null; readonly message: string };
}

const port = must(parentPort, 'a worker has a parent');
installNodeSha256();

function answer(id: number, act: () => unknown): boolean {
  let reply: LedgerReply;
  try {
    reply = { id, value: act() };
  } catch (error) {
    const code = error instanceof CodedError ? error.code : null;
    reply = { id, error: { code, message: error instanceof Error ? error.message : String(error) } };
  }
  port.postMessage(reply);
  return reply.error === undefined;
}

let sql: LedgerSql | undefined;
const opened = answer(0, () => {
  sql = openLedgerSql(workerData as LedgerPlace);
});
if (opened) {
  port.on('message', ({ id, method, parameters }: LedgerCall) => {
    answer(id, () => (sql![method] as (...parameters: readonly unknown[]) => unknown)(...parameters));
    if (method === 'close') port.close();
  });
}
