/**
 * The ledger's tables in SQLite, as plain calls that block: each change is one transaction, so a process that is killed
 * at any moment leaves the rows of exactly the last block. Runs in the thread of `ledger-worker.ts`; its callers know
 * `LedgerStore`.
 */
import type { DatabaseSync, SQLOutputValue } from 'node:sqlite';
import { crc32 } from 'node:zlib';
import type { Change } from '../../ledger/draft.ts';
import { decodeRow, encodeRow, isTableName } from '../../ledger/row-codec.ts';
import {
  decodeSnapshotInfo,
  type EncodedRow,
  encodeSnapshotInfo,
  headFields,
  headOf,
  snapshotChunks,
} from '../../ledger/snapshot-chunks.ts';
import {
  type BlockSummary,
  checkedLimit,
  type LedgerHead,
  type LedgerStore,
  type NewBlock,
  refuseUnlessNext,
  refuseUnlessSnapshot,
  type SnapshotInfo,
  type StoredBlock,
  snapshotsKept,
  type TransactionFilter,
  type TransactionPage,
  type TransactionPlace,
  transactionsPerBlockMax,
} from '../../ledger/store.ts';
import { type TableName, tableNames } from '../../ledger/tables.ts';
import { decodeCanonical, encodeCanonical } from '../../std/codec.ts';
import { sha256 } from '../../std/hash.ts';
import { CodedError } from '../../std/outcome.ts';
import { damagedFile, openLedgerFile, sqliteError } from './ledger-file.ts';

export interface LedgerPlace {
  readonly path: string;
  /** 32 bytes. */
  readonly networkId: Uint8Array;
}

/** Deleted in one transaction; the thread answers others between two. */
const prunedBlocksAtOnce = 16;
const rowsPerPage = 1000;

type Values = Record<string, SQLOutputValue>;

/** What `ledger-worker.ts` serves: one method for each call of the store, and two that the store calls repeatedly. */
export type LedgerSql = ReturnType<typeof openLedgerSql>;

type BlockPage = Parameters<LedgerStore['blocks']>[0];
type RunSize = Parameters<LedgerStore['blocksFrom']>[1];

interface Opened {
  readonly path: string;
  readonly database: DatabaseSync;
  readonly statements: Statements;
}

/** Throws CodedError: see `openLedgerFile`. */
export function openLedgerSql({ path, networkId }: LedgerPlace) {
  const database = openLedgerFile(path, networkId);
  const opened: Opened = { path, database, statements: prepare(database) };
  return {
    ...reading(opened),
    ...installing(opened),
    ...growing(opened),
    close: () => guarded(opened, () => database.close()),
  };
}

function guarded<T>({ path }: Opened, act: () => T): T {
  try {
    return act();
  } catch (error) {
    throw sqliteError(error, path);
  }
}

function atomically<T>(opened: Opened, act: () => T): T {
  const { database } = opened;
  return guarded(opened, () => {
    database.exec('BEGIN IMMEDIATE');
    try {
      const result = act();
      database.exec('COMMIT');
      return result;
    } catch (error) {
      if (database.isTransaction) database.exec('ROLLBACK');
      throw error;
    }
  });
}

function reading(opened: Opened) {
  const { path, statements } = opened;
  return {
    head: () => guarded(opened, () => readHead(statements, path)),
    rowsAfter: (after: readonly [TableName, string] | null): Change[] =>
      guarded(opened, () => {
        const [table, key] = after ? [tableNames.indexOf(after[0]), after[1]] : [-1, ''];
        return statements.rowsAfter
          .all(table, key, rowsPerPage)
          .map((row) => decoded(encodedRow(row, path), path));
      }),
    block: (number: number) =>
      guarded(opened, () => {
        const found = statements.block.get(number);
        return found && storedBlock(found, path);
      }),
    blocks: ({ before = Number.MAX_SAFE_INTEGER, limit }: BlockPage) =>
      guarded(opened, () => statements.blocks.all(before, checkedLimit(limit)).map(summary)),
    blocksFrom: (number: number, most: RunSize) =>
      guarded(opened, () => readRun(statements, path, number, most)),
    transaction: (id: Uint8Array) =>
      guarded(opened, () => {
        const found = statements.transaction.get(id);
        return found && placeOf(found);
      }),
    transactions: (filter: TransactionFilter, page: TransactionPage) =>
      guarded(opened, () => findTransactions(statements, filter, page)),
    snapshots: () => guarded(opened, () => statements.snapshots.all().map((row) => snapshotInfo(row, path))),
    snapshotChunk: (number: number, index: number) =>
      guarded(opened, () => statements.chunk.get(number, index)?.bytes as Uint8Array | undefined),
  };
}

/** A state may be larger than one call should carry: rows come in parts, and count once the last call has come. */
function installing(opened: Opened) {
  const { database, statements } = opened;
  return {
    beginInstall: () =>
      guarded(opened, () => {
        database.exec('BEGIN IMMEDIATE');
        for (const table of ['block', 'row', 'entry', 'touched', 'snapshot', 'chunk'])
          database.exec(`DELETE FROM "${table}"`);
      }),
    installRows: (rows: readonly Change[]) => guarded(opened, () => putRows(statements, rows)),
    /** Without a head all is as it was. */
    endInstall: (to: LedgerHead | null) =>
      guarded(opened, () => {
        if (to) putHead(statements, to);
        if (database.isTransaction) database.exec(to ? 'COMMIT' : 'ROLLBACK');
      }),
  };
}

/** The block that comes next, and what is forgotten when there are many. */
function growing(opened: Opened) {
  const { path, statements } = opened;
  return {
    append: (block: NewBlock, changes: readonly Change[]) =>
      atomically(opened, () => {
        refuseUnlessNext(readHead(statements, path), block);
        putBlock(statements, block);
        putRows(statements, changes);
        putHead(statements, block);
      }),
    takeSnapshot: () =>
      atomically(opened, () => {
        const now = readHead(statements, path);
        if (!now) throw new CodedError('no-state', 'there is no state yet');
        const existing = statements.snapshot.get(now.number);
        if (existing) return snapshotInfo(existing, path);
        const info = putSnapshot(statements, now, path);
        statements.forgetChunks.run(snapshotsKept);
        statements.forgetSnapshots.run(snapshotsKept);
        return info;
      }),
    /** Whether there is more. */
    pruneSome: (belowNumber: number): boolean =>
      atomically(opened, () => {
        const snapshots = statements.snapshots.all().map(({ number }) => Number(number));
        refuseUnlessSnapshot(snapshots, belowNumber);
        const oldest = statements.oldest.get()?.number;
        if (typeof oldest !== 'number' || oldest >= belowNumber) return false;
        const end = Math.min(belowNumber, oldest + prunedBlocksAtOnce);
        statements.forgetTouched.run(end * transactionsPerBlockMax);
        statements.forgetEntries.run(end * transactionsPerBlockMax);
        statements.forgetBlocks.run(end);
        return end < belowNumber;
      }),
  };
}

type Statements = ReturnType<typeof prepare>;

const summaryColumns =
  'number, hash, height, epoch, state_root, time_ms, proposer, transactions, payload_bytes';
const blockColumns = `${summaryColumns}, certificate, checksum, payload`;

function prepare(database: DatabaseSync) {
  const sql = (text: string) => database.prepare(text);
  return {
    getHead: sql('SELECT value, checksum FROM meta WHERE name = ?'),
    putMeta: sql('INSERT OR REPLACE INTO meta VALUES (?, ?, ?)'),
    putBlock: sql(`INSERT INTO block (${blockColumns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`),
    block: sql(`SELECT ${blockColumns} FROM block WHERE number = ?`),
    blocks: sql(`SELECT ${summaryColumns} FROM block WHERE number < ? ORDER BY number DESC LIMIT ?`),
    blocksFrom: sql(`SELECT ${blockColumns} FROM block WHERE number >= ? ORDER BY number LIMIT ?`),
    oldest: sql('SELECT min(number) AS number FROM block'),
    putRow: sql('INSERT OR REPLACE INTO "row" VALUES (?, ?, ?, ?)'),
    deleteRow: sql('DELETE FROM "row" WHERE name = ? AND key = ?'),
    rowsAfter: sql('SELECT * FROM "row" WHERE (name, key) > (?, ?) ORDER BY name, key LIMIT ?'),
    allRows: sql('SELECT * FROM "row" ORDER BY name, key'),
    putEntry: sql('INSERT INTO entry VALUES (?, ?, ?)'),
    putTouched: sql('INSERT OR IGNORE INTO touched VALUES (?, ?)'),
    transaction: sql('SELECT place, id, kind FROM entry WHERE id = ? ORDER BY place DESC LIMIT 1'),
    ofAll: sql('SELECT place, id, kind FROM entry WHERE place < ? ORDER BY place DESC LIMIT ?'),
    ofKind: sql('SELECT place, id, kind FROM entry WHERE kind = ? AND place < ? ORDER BY place DESC LIMIT ?'),
    ofAccount: sql(
      'SELECT e.place, id, kind FROM touched t JOIN entry e ON e.place = t.place ' +
        'WHERE account = ? AND t.place < ? ORDER BY t.place DESC LIMIT ?',
    ),
    ofBoth: sql(
      'SELECT e.place, id, kind FROM touched t JOIN entry e ON e.place = t.place ' +
        'WHERE account = ? AND kind = ? AND t.place < ? ORDER BY t.place DESC LIMIT ?',
    ),
    forgetTouched: sql('DELETE FROM touched WHERE place < ?'),
    forgetEntries: sql('DELETE FROM entry WHERE place < ?'),
    forgetBlocks: sql('DELETE FROM block WHERE number < ?'),
    putSnapshot: sql('INSERT INTO snapshot VALUES (?, ?)'),
    putChunk: sql('INSERT INTO chunk VALUES (?, ?, ?)'),
    snapshot: sql('SELECT * FROM snapshot WHERE number = ?'),
    snapshots: sql('SELECT * FROM snapshot ORDER BY number DESC'),
    chunk: sql('SELECT bytes FROM chunk WHERE number = ? AND position = ?'),
    forgetChunks: sql(
      'DELETE FROM chunk WHERE number NOT IN (SELECT number FROM snapshot ORDER BY number DESC LIMIT ?)',
    ),
    forgetSnapshots: sql(
      'DELETE FROM snapshot WHERE number NOT IN (SELECT number FROM snapshot ORDER BY number DESC LIMIT ?)',
    ),
  };
}

function readHead(statements: Statements, path: string): LedgerHead | undefined {
  const found = statements.getHead.get('head');
  if (!found) return undefined;
  const value = found.value as Uint8Array;
  const fields = decodeCanonical(value, 1024);
  const head = fields.ok && Array.isArray(fields.value) ? headOf(fields.value) : undefined;
  if (!head || crc32(value) !== found.checksum) throw damagedFile(path, 'its head');
  return head;
}

function putHead(statements: Statements, head: LedgerHead): void {
  const value = encodeCanonical(headFields(head));
  statements.putMeta.run('head', value, crc32(value));
}

function putBlock(statements: Statements, block: NewBlock): void {
  const { number, hash, height, epoch, stateRoot, timeMs, proposer, payload, certificate, transactions } =
    block;
  const checksum = blockChecksum(hash, stateRoot, payload, certificate);
  const counts = [transactions.length, payload.length] as const;
  const fields = [number, hash, height, epoch, stateRoot, timeMs, proposer, ...counts] as const;
  statements.putBlock.run(...fields, certificate, checksum, payload);
  for (const [index, { id, kind, accounts }] of transactions.entries()) {
    const place = number * transactionsPerBlockMax + index;
    statements.putEntry.run(place, id, kind);
    for (const account of accounts) statements.putTouched.run(account, place);
  }
}

function blockChecksum(
  hash: Uint8Array,
  stateRoot: Uint8Array,
  payload: Uint8Array,
  certificate: Uint8Array | null,
): number {
  return crc32(certificate ?? '', crc32(payload, crc32(stateRoot, crc32(hash))));
}

function putRows(statements: Statements, changes: readonly Change[]): void {
  for (const { table, key, row } of changes) {
    const name = tableNames.indexOf(table);
    if (row === undefined) statements.deleteRow.run(name, key);
    else {
      const bytes = encodeRow(row);
      statements.putRow.run(name, key, bytes, rowChecksum(table, key, bytes));
    }
  }
}

function rowChecksum(table: TableName, key: string, bytes: Uint8Array): number {
  return crc32(bytes, crc32(`${table} ${key}`));
}

function encodedRow({ name, key, value, checksum }: Values, path: string): EncodedRow {
  const table = tableNames[Number(name)];
  if (!isTableName(table) || typeof key !== 'string' || !(value instanceof Uint8Array))
    throw damagedFile(path, 'a row of the state');
  if (rowChecksum(table, key, value) !== checksum) throw damagedFile(path, `the row ${table} ${key}`);
  return { table, key, bytes: value };
}

function decoded({ table, key, bytes }: EncodedRow, path: string): Change {
  const row = decodeRow(table, bytes);
  if (!row.ok) throw damagedFile(path, `the row ${table} ${key}`);
  return { table, key, row: row.value };
}

function summary(values: Values): BlockSummary {
  return {
    number: Number(values.number),
    hash: values.hash as Uint8Array,
    height: Number(values.height),
    epoch: Number(values.epoch),
    stateRoot: values.state_root as Uint8Array,
    timeMs: Number(values.time_ms),
    proposer: String(values.proposer),
    transactions: Number(values.transactions),
    payloadBytes: Number(values.payload_bytes),
  };
}

function storedBlock(values: Values, path: string): StoredBlock {
  const { certificate, payload, checksum } = values;
  const isWhole =
    payload instanceof Uint8Array && (certificate === null || certificate instanceof Uint8Array);
  const head = summary(values);
  if (!isWhole || blockChecksum(head.hash, head.stateRoot, payload, certificate) !== checksum)
    throw damagedFile(path, `block ${head.number}`);
  return { ...head, payload, certificate };
}

/** Blocks that follow each other, from this one on: one at least, however large, where it is there. */
function readRun(statements: Statements, path: string, number: number, most: RunSize): StoredBlock[] {
  const found: StoredBlock[] = [];
  let bytes = 0;
  for (const row of statements.blocksFrom.iterate(number, most.blocks)) {
    bytes += Number(row.payload_bytes);
    if (Number(row.number) !== number + found.length || (found.length > 0 && bytes > most.bytes)) break;
    found.push(storedBlock(row, path));
  }
  return found;
}

function findTransactions(
  { ofAll, ofKind, ofAccount, ofBoth }: Statements,
  { account, kind }: TransactionFilter,
  { before, limit }: TransactionPage,
): TransactionPlace[] {
  const below = before ? before.number * transactionsPerBlockMax + before.index : Number.MAX_SAFE_INTEGER;
  checkedLimit(limit);
  if (account === undefined)
    return (kind === undefined ? ofAll.all(below, limit) : ofKind.all(kind, below, limit)).map(placeOf);
  return (
    kind === undefined ? ofAccount.all(account, below, limit) : ofBoth.all(account, kind, below, limit)
  ).map(placeOf);
}

function placeOf({ place, id, kind }: Values): TransactionPlace {
  const index = Number(place) % transactionsPerBlockMax;
  const number = (Number(place) - index) / transactionsPerBlockMax;
  return { id: id as Uint8Array, kind: String(kind), number, index };
}

function putSnapshot(statements: Statements, head: LedgerHead, path: string): SnapshotInfo {
  function* rows(): Generator<EncodedRow> {
    for (const row of statements.allRows.iterate()) yield encodedRow(row, path);
  }
  const hashes: Uint8Array[] = [];
  let bytes = 0;
  for (const chunk of snapshotChunks(rows())) {
    statements.putChunk.run(head.number, hashes.length, chunk);
    hashes.push(sha256(chunk));
    bytes += chunk.length;
  }
  const info = { head, chunks: hashes, bytes };
  statements.putSnapshot.run(head.number, encodeSnapshotInfo(info));
  return info;
}

function snapshotInfo({ info }: Values, path: string): SnapshotInfo {
  const decodedInfo = decodeSnapshotInfo(info as Uint8Array);
  if (!decodedInfo.ok) throw damagedFile(path, 'a snapshot');
  return decodedInfo.value;
}
