/**
 * A ledger store that lives as long as the object: the simulator keeps it across a node's crash. Keeps encoded bytes,
 * so what comes out is never what a caller may still be changing.
 */
import { toHex } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';
import { CodedError } from '../std/outcome.ts';
import type { Change } from './draft.ts';
import { decodeRow, encodeRow } from './row-codec.ts';
import { compareRows, type EncodedRow, snapshotChunks } from './snapshot-chunks.ts';
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
  type TransactionEntry,
  type TransactionFilter,
  type TransactionPage,
  type TransactionPlace,
} from './store.ts';

interface Kept {
  readonly block: StoredBlock;
  readonly entries: readonly TransactionEntry[];
}

interface KeptSnapshot {
  readonly info: SnapshotInfo;
  readonly chunks: readonly Uint8Array[];
}

interface Contents {
  head: LedgerHead | undefined;
  readonly rows: Map<string, EncodedRow>;
  /** By number, ascending. */
  readonly blocks: Map<number, Kept>;
  readonly places: Map<string, TransactionPlace>;
  snapshots: readonly KeptSnapshot[];
}

const rowsPerPage = 1000;

export function memoryLedgerStore(): LedgerStore {
  const kept: Contents = {
    head: undefined,
    rows: new Map(),
    blocks: new Map(),
    places: new Map(),
    snapshots: [],
  };
  return {
    head: async () => kept.head && { ...kept.head },
    install: async (head, rows) => install(kept, head, rows),
    append: async (block, changes) => append(kept, block, changes),
    async *rows() {
      const all = sortedRows(kept);
      for (let start = 0; start < all.length; start += rowsPerPage)
        yield all.slice(start, start + rowsPerPage).map(decoded);
    },
    block: async (number) => copyOf(kept.blocks.get(number)?.block),
    async blocks({ before = Number.POSITIVE_INFINITY, limit }) {
      const newest = [...kept.blocks.keys()].reverse().filter((number) => number < before);
      return newest.slice(0, checkedLimit(limit)).map((number) => summaryOf(kept.blocks.get(number)!.block));
    },
    async blocksFrom(number, most) {
      const found: StoredBlock[] = [];
      let bytes = 0;
      for (let next = number; found.length < most.blocks; next++) {
        const block = copyOf(kept.blocks.get(next)?.block);
        bytes += block?.payloadBytes ?? 0;
        if (!block || (found.length > 0 && bytes > most.bytes)) break;
        found.push(block);
      }
      return found;
    },
    async transaction(id) {
      const place = kept.places.get(toHex(id));
      return place && { ...place, id: place.id.slice() };
    },
    transactions: async (filter, page) => transactionsOf(kept, filter, page),
    takeSnapshot: async () => takeSnapshot(kept),
    snapshots: async () => structuredClone(kept.snapshots.map(({ info }) => info)),
    snapshotChunk: async (number, index) =>
      kept.snapshots.find(({ info }) => info.head.number === number)?.chunks[index]?.slice(),
    prune: async (belowNumber) => prune(kept, belowNumber),
    close: async () => undefined,
  };
}

function install(kept: Contents, head: LedgerHead, all: Iterable<Change>): void {
  const rows = [...all];
  for (const each of [kept.rows, kept.blocks, kept.places]) each.clear();
  kept.snapshots = [];
  apply(kept, rows);
  kept.head = structuredClone(head);
}

function append(kept: Contents, block: NewBlock, changes: readonly Change[]): void {
  refuseUnlessNext(kept.head, block);
  const { transactions: entries, ...rest } = structuredClone(block);
  const payloadBytes = block.payload.length;
  kept.blocks.set(block.number, {
    block: { ...rest, transactions: entries.length, payloadBytes },
    entries,
  });
  for (const [index, { id, kind }] of entries.entries())
    kept.places.set(toHex(id), { id, kind, number: block.number, index });
  apply(kept, changes);
  const { number, hash, height, epoch, stateRoot } = rest;
  kept.head = { number, hash, height, epoch, stateRoot };
}

function apply(kept: Contents, changes: Iterable<Change>): void {
  for (const { table, key, row } of changes) {
    const name = `${table} ${key}`;
    if (row === undefined) kept.rows.delete(name);
    else kept.rows.set(name, { table, key, bytes: encodeRow(row) });
  }
}

function sortedRows(kept: Contents): EncodedRow[] {
  return [...kept.rows.values()].sort(compareRows);
}

function decoded({ table, key, bytes }: EncodedRow): Change {
  const row = decodeRow(table, bytes);
  if (!row.ok) throw new CodedError('ledger-damaged', `row ${table} ${key}: ${row.detail}`);
  return { table, key, row: row.value };
}

function copyOf(block: StoredBlock | undefined): StoredBlock | undefined {
  return block && structuredClone(block);
}

function summaryOf({ payload: _payload, certificate: _certificate, ...summary }: StoredBlock): BlockSummary {
  return structuredClone(summary);
}

function transactionsOf(
  kept: Contents,
  { account, kind }: TransactionFilter,
  { before, limit }: TransactionPage,
): TransactionPlace[] {
  const found: TransactionPlace[] = [];
  checkedLimit(limit);
  for (const { block, entries } of [...kept.blocks.values()].reverse()) {
    for (let index = entries.length - 1; index >= 0; index--) {
      const entry = entries[index]!;
      if (before && (block.number - before.number || index - before.index) >= 0) continue;
      if (kind !== undefined && entry.kind !== kind) continue;
      if (account !== undefined && !entry.accounts.includes(account)) continue;
      found.push({ id: entry.id.slice(), kind: entry.kind, number: block.number, index });
      if (found.length === limit) return found;
    }
  }
  return found;
}

function takeSnapshot(kept: Contents): SnapshotInfo {
  const { head } = kept;
  if (!head) throw new CodedError('no-state', 'there is no state yet');
  const existing = kept.snapshots.find(({ info }) => info.head.number === head.number);
  if (existing) return structuredClone(existing.info);
  const chunks = [...snapshotChunks(sortedRows(kept))];
  const bytes = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const info = structuredClone({ head, chunks: chunks.map((chunk) => sha256(chunk)), bytes });
  kept.snapshots = [{ info, chunks }, ...kept.snapshots].slice(0, snapshotsKept);
  return structuredClone(info);
}

function prune(kept: Contents, belowNumber: number): void {
  refuseUnlessSnapshot(
    kept.snapshots.map(({ info }) => info.head.number),
    belowNumber,
  );
  for (const [number, { entries }] of kept.blocks) {
    if (number >= belowNumber) break;
    kept.blocks.delete(number);
    for (const { id } of entries)
      if (kept.places.get(toHex(id))?.number === number) kept.places.delete(toHex(id));
  }
}
