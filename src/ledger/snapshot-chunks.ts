/**
 * A ledger state in chunks: rows in the order of tables and keys, each chunk a canonical list of [table, key, row bytes].
 * A newcomer checks every chunk against its hash as it comes, and the state root once it has all. Knows no network.
 */
import { equalBytes } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { sha256 } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { Change } from './draft.ts';
import { decodeRow, isTableName, rowBytesMax } from './row-codec.ts';
import type { LedgerHead, SnapshotInfo } from './store.ts';
import { type TableName, tableNames } from './tables.ts';

const chunkBytes = 256 * 1024;
/** A chunk ends with the row that fills it. */
export const snapshotChunkBytesMax = chunkBytes + rowBytesMax + 1024;
/** With hashes of 32 bytes an info stays below a megabyte; at 256 KiB a chunk that is a state of 4 GiB. */
const chunksMax = 16_384;
export const snapshotInfoBytesMax = 1024 * 1024;

export interface EncodedRow {
  readonly table: TableName;
  readonly key: string;
  readonly bytes: Uint8Array;
}

/** `rows` are in order of table and key. No rows: no chunks. */
export function* snapshotChunks(rows: Iterable<EncodedRow>): Generator<Uint8Array> {
  let chunk: Canonical[] = [];
  let size = 0;
  for (const { table, key, bytes } of rows) {
    chunk.push([table, key, bytes]);
    size += bytes.length + key.length + table.length + 8;
    if (size < chunkBytes) continue;
    yield encodeCanonical(chunk);
    chunk = [];
    size = 0;
  }
  if (chunk.length > 0) yield encodeCanonical(chunk);
}

export interface SnapshotReader {
  /**
   * The next chunk, in order. `wrong-chunk`: not what the info names; `malformed-snapshot`: the info was made by somebody
   * who cheats, for nobody else signs such a chunk.
   */
  add(chunk: Uint8Array): Outcome<readonly Change[]>;
  /** Chunks still missing. */
  left(): number;
}

/** Reads the chunks of untrusted peers. The root of all rows together is for the caller to compare. */
export function readSnapshot(info: SnapshotInfo): SnapshotReader {
  let taken = 0;
  let last: Change | undefined;
  return {
    add(chunk) {
      const expected = info.chunks[taken];
      if (!expected || !equalBytes(sha256(chunk), expected)) return reject('wrong-chunk', `${taken}`);
      const rows = decodeChunk(chunk);
      if (!rows.ok) return rows;
      for (const row of rows.value) {
        if (last && compareRows(last, row) >= 0) return reject('malformed-snapshot', 'rows out of order');
        last = row;
      }
      taken += 1;
      return rows;
    },
    left: () => info.chunks.length - taken,
  };
}

function decodeChunk(chunk: Uint8Array): Outcome<readonly Change[]> {
  const decoded = decodeCanonical(chunk, snapshotChunkBytesMax);
  if (!decoded.ok) return reject('malformed-snapshot', decoded.code);
  if (!Array.isArray(decoded.value)) return reject('malformed-snapshot', 'no list of rows');
  const rows: Change[] = [];
  for (const item of decoded.value as unknown[]) {
    const [table, key, bytes] = Array.isArray(item) && item.length === 3 ? item : [];
    if (!isTableName(table) || typeof key !== 'string' || !(bytes instanceof Uint8Array))
      return reject('malformed-snapshot', 'a row');
    const row = decodeRow(table, bytes);
    if (!row.ok) return reject('malformed-snapshot', row.detail);
    rows.push({ table, key, row: row.value });
  }
  return accept(rows);
}

/** Order of tables, then of keys by UTF-16 code units; keys are ASCII. */
export function compareRows(
  a: { readonly table: TableName; readonly key: string },
  b: { readonly table: TableName; readonly key: string },
): number {
  const tables = tableNames.indexOf(a.table) - tableNames.indexOf(b.table);
  if (tables !== 0) return tables;
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

export function encodeSnapshotInfo({ head, chunks, bytes }: SnapshotInfo): Uint8Array {
  return encodeCanonical([...headFields(head), chunks, bytes]);
}

/** Untrusted bytes: `malformed-snapshot`. */
export function decodeSnapshotInfo(encoded: Uint8Array): Outcome<SnapshotInfo> {
  const decoded = decodeCanonical(encoded, snapshotInfoBytesMax);
  if (!decoded.ok) return reject('malformed-snapshot', decoded.code);
  const fields = Array.isArray(decoded.value) && decoded.value.length === 7 ? decoded.value : [];
  const head = headOf(fields.slice(0, 5));
  const [chunks, bytes] = fields.slice(5) as unknown[];
  if (!head || !isCount(bytes)) return reject('malformed-snapshot', 'head');
  if (!Array.isArray(chunks) || chunks.length > chunksMax || !chunks.every(isHash))
    return reject('malformed-snapshot', 'chunks');
  return accept({ head, chunks, bytes });
}

export function headFields(head: LedgerHead): Canonical[] {
  return [head.number, head.hash, head.height, head.epoch, head.stateRoot];
}

/** Undefined when the form is wrong. */
export function headOf(fields: readonly unknown[]): LedgerHead | undefined {
  const [number, hash, height, epoch, stateRoot] = fields;
  if (fields.length !== 5 || !isCount(number) || !isCount(height) || !isCount(epoch)) return undefined;
  if (!isHash(hash) || !isHash(stateRoot)) return undefined;
  return { number, hash, height, epoch, stateRoot };
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isHash(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === 32;
}
