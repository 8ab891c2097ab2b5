/**
 * The ledger's database file: opened only if it is ours, whole, of this network and of this version, and made if it is
 * not there. Turns what SQLite says into one coded error. Knows no block.
 */
import { DatabaseSync } from 'node:sqlite';
import { equalBytes } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';

/** 'NSLG': tells our files from other programs' databases (https://www.sqlite.org/pragma.html#pragma_application_id). */
const applicationId = 0x4e534c47;
/** Raised when the tables change; there is no older version to bring forward yet. */
export const ledgerSchemaVersion = 1;

/** Blocks' payloads come last: reading the rest of a row then leaves their pages alone. */
const schema = `
  CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
  CREATE TABLE block (
    number INTEGER PRIMARY KEY, hash BLOB NOT NULL, height INTEGER NOT NULL, epoch INTEGER NOT NULL,
    state_root BLOB NOT NULL, time_ms INTEGER NOT NULL, proposer TEXT NOT NULL, transactions INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL, certificate BLOB, checksum INTEGER NOT NULL, payload BLOB NOT NULL);
  CREATE TABLE "row" (
    name INTEGER NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (name, key)) WITHOUT ROWID;
  CREATE TABLE entry (place INTEGER PRIMARY KEY, id BLOB NOT NULL, kind TEXT NOT NULL);
  CREATE INDEX entry_id ON entry (id, place);
  CREATE INDEX entry_kind ON entry (kind, place);
  CREATE TABLE touched (account TEXT NOT NULL, place INTEGER NOT NULL, PRIMARY KEY (account, place)) WITHOUT ROWID;
  CREATE INDEX touched_place ON touched (place);
  CREATE TABLE snapshot (number INTEGER PRIMARY KEY, info BLOB NOT NULL);
  CREATE TABLE chunk (
    number INTEGER NOT NULL, position INTEGER NOT NULL, bytes BLOB NOT NULL, PRIMARY KEY (number, position));
`;

/**
 * Throws CodedError `ledger-damaged` (no database of ours, or a broken one), `other-network`, `other-version`,
 * `ledger-in-use`, `permission-denied`, `disk-full` or `ledger-failed`. The file is left as it is.
 */
export function openLedgerFile(path: string, networkId: Uint8Array): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    // One process only, and no shared-memory file: a file cut short under a memory map would end the process.
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA mmap_size = 0');
    if (isNew(database)) create(database, networkId);
    else check(database, networkId, path);
    // In WAL a commit is one append and one sync of the log; FULL syncs it before the commit returns.
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA cache_size = -16384');
    database.exec('BEGIN IMMEDIATE; COMMIT');
    return database;
  } catch (error) {
    if (database?.isOpen) database.close();
    throw sqliteError(error, path);
  }
}

function pragma(database: DatabaseSync, name: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${name}`).get() ?? {})[0];
}

function isNew(database: DatabaseSync): boolean {
  const tables = database.prepare('SELECT count(*) AS count FROM sqlite_schema').get()?.count;
  return tables === 0 && pragma(database, 'application_id') === 0 && pragma(database, 'user_version') === 0;
}

function create(database: DatabaseSync, networkId: Uint8Array): void {
  database.exec('BEGIN IMMEDIATE');
  database.exec(schema);
  database.prepare('INSERT INTO meta VALUES (?, ?, 0)').run('network', networkId);
  database.exec(
    `PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${ledgerSchemaVersion}; COMMIT`,
  );
}

function check(database: DatabaseSync, networkId: Uint8Array, path: string): void {
  if (pragma(database, 'application_id') !== applicationId)
    throw new CodedError('ledger-damaged', `${path} is no ledger of NeuroShard: move it away`);
  const version = pragma(database, 'user_version');
  if (version !== ledgerSchemaVersion) {
    const advice = 'delete it, and the node fetches the ledger from others';
    throw new CodedError(
      'other-version',
      `${path} has version ${version} of the tables, not ${ledgerSchemaVersion}: ${advice}`,
    );
  }
  const result = pragma(database, 'quick_check(1)');
  if (result !== 'ok') throw damagedFile(path, String(result));
  const found = database.prepare('SELECT value FROM meta WHERE name = ?').get('network')?.value;
  if (!(found instanceof Uint8Array)) throw damagedFile(path, 'it names no network');
  if (!equalBytes(found, networkId))
    throw new CodedError(
      'other-network',
      `${path} is the ledger of another network: use another data folder`,
    );
}

/** What a file that is not whole is called, with what to do about it. */
export function damagedFile(path: string, what: string): CodedError {
  return new CodedError(
    'ledger-damaged',
    `${path} is damaged (${what}): delete it, and the node fetches the ledger from others`,
  );
}

/** By SQLite's primary result code, https://www.sqlite.org/rescode.html. */
const codes: Readonly<Record<number, readonly [code: string, text: string]>> = {
  3: ['permission-denied', 'permission denied'],
  5: ['ledger-in-use', 'another process has it open'],
  6: ['ledger-in-use', 'another process has it open'],
  8: ['permission-denied', 'it cannot be written'],
  13: ['disk-full', 'no space left on the disk'],
  14: ['permission-denied', 'it cannot be opened'],
};
/** Corrupt, not a database, and a file shorter than its header says. */
const damageCodes = [11, 26];
const shortRead = 522;

export function sqliteError(error: unknown, path: string): Error {
  if (error instanceof CodedError || !(error instanceof Error)) return error as Error;
  const { errcode } = error as Error & { errcode?: number };
  if (errcode === undefined) {
    // Not SQLite's: a call after `close`, or a bug of ours that must be seen as one.
    if ((error as NodeJS.ErrnoException).code === 'ERR_INVALID_STATE')
      return new CodedError('ledger-closed', 'the ledger is closed', { cause: error });
    return error;
  }
  const options = { cause: error };
  const primary = errcode & 0xff;
  if (damageCodes.includes(primary) || errcode === shortRead) return damagedFile(path, error.message);
  const [code, text] = codes[primary] ?? ['ledger-failed', error.message];
  return new CodedError(code, `cannot use the ledger ${path}: ${text}`, options);
}
