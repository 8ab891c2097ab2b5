/**
 * What keeps a node's ledger: blocks, the rows of the state after the last of them, an index of transactions, and
 * snapshots for newcomers. A block and the rows it changed are kept together or not at all. The store checks that blocks
 * come one after another and knows nothing else of what they mean.
 */
import { CodedError } from '../std/outcome.ts';
import type { Change } from './draft.ts';

/** The last block applied. Number 0 is the genesis state: there is no such block. */
export interface LedgerHead {
  readonly number: number;
  /** 32 bytes. */
  readonly hash: Uint8Array;
  /** Height at which consensus decided it, and the epoch whose members did. */
  readonly height: number;
  readonly epoch: number;
  /** Of the rows after this block: whoever loads them can tell whether they are whole. */
  readonly stateRoot: Uint8Array;
}

export interface TransactionEntry {
  /** 32 bytes. */
  readonly id: Uint8Array;
  readonly kind: string;
  /** Node ids of the accounts that it concerns, each once. */
  readonly accounts: readonly string[];
}

/** A block to be kept. */
export interface NewBlock extends LedgerHead {
  readonly timeMs: number;
  readonly proposer: string;
  readonly payload: Uint8Array;
  /** Votes that decided it; null when a later block's certificate did. */
  readonly certificate: Uint8Array | null;
  /** In the block's order. */
  readonly transactions: readonly TransactionEntry[];
}

export interface BlockSummary extends LedgerHead {
  readonly timeMs: number;
  readonly proposer: string;
  /** How many. */
  readonly transactions: number;
  readonly payloadBytes: number;
}

export interface StoredBlock extends BlockSummary {
  readonly payload: Uint8Array;
  readonly certificate: Uint8Array | null;
}

export interface TransactionPlace {
  readonly id: Uint8Array;
  readonly kind: string;
  readonly number: number;
  /** Within the block, from 0. */
  readonly index: number;
}

/** Newest first: those before a place, or from the newest on. */
export interface TransactionPage {
  readonly before?: { readonly number: number; readonly index: number };
  readonly limit: number;
}

export interface TransactionFilter {
  readonly account?: string;
  readonly kind?: string;
}

/** A state as it was after a block, in chunks that can be fetched one by one. */
export interface SnapshotInfo {
  readonly head: LedgerHead;
  /** SHA-256 of each chunk, in order. */
  readonly chunks: readonly Uint8Array[];
  readonly bytes: number;
}

export const pageLimitMax = 1000;
/** Blocks below are numbered together with the transactions in them. */
export const transactionsPerBlockMax = 16_384;
/** A newcomer that is fetching one must not lose it to the next. */
export const snapshotsKept = 2;

/**
 * Every method may fail with a `CodedError`: `ledger-damaged`, `disk-full`, `ledger-failed`, `ledger-closed`. What is
 * asked for is done in order. A promise of a change resolves when the change survives the loss of power.
 */
export interface LedgerStore {
  /** Undefined before the first `install`. */
  head(): Promise<LedgerHead | undefined>;
  /** The genesis state, or a verified snapshot: everything that was here before is gone. Nothing else meanwhile. */
  install(head: LedgerHead, rows: Iterable<Change>): Promise<void>;
  /** The block after the head with all rows that it changed; `not-next` for any other block. */
  append(block: NewBlock, changes: readonly Change[]): Promise<void>;
  /** The state, in pages. Nothing may be appended meanwhile. */
  rows(): AsyncIterable<readonly Change[]>;

  /** Undefined when it is pruned or not there yet. */
  block(number: number): Promise<StoredBlock | undefined>;
  /** Newest first: those before a number, or from the newest on. */
  blocks(page: { readonly before?: number; readonly limit: number }): Promise<readonly BlockSummary[]>;
  /** For those who catch up: from `number` on, oldest first, one at least if it is there. */
  blocksFrom(
    number: number,
    most: { readonly blocks: number; readonly bytes: number },
  ): Promise<readonly StoredBlock[]>;
  /** The newest of the name: what proposers put in has no author to make it unique. */
  transaction(id: Uint8Array): Promise<TransactionPlace | undefined>;
  transactions(filter: TransactionFilter, page: TransactionPage): Promise<readonly TransactionPlace[]>;

  /** Keeps the state of now; the newest two are kept. `no-state` before the first `install`. */
  takeSnapshot(): Promise<SnapshotInfo>;
  /** Newest first. */
  snapshots(): Promise<readonly SnapshotInfo[]>;
  snapshotChunk(number: number, index: number): Promise<Uint8Array | undefined>;
  /**
   * Forgets blocks with a lower number, and where their transactions were. `no-snapshot` unless a newcomer could start
   * from a snapshot here and the blocks that are left.
   */
  prune(belowNumber: number): Promise<void>;
  close(): Promise<void>;
}

/** What every store asks of a block before it touches anything. */
export function refuseUnlessNext(head: LedgerHead | undefined, block: NewBlock): void {
  if (block.number !== (head ? head.number + 1 : Number.NaN))
    throw new CodedError('not-next', `block ${block.number} does not follow ${head?.number ?? 'nothing'}`);
  if (block.transactions.length > transactionsPerBlockMax)
    throw new CodedError('not-next', `block ${block.number} has ${block.transactions.length} transactions`);
}

export function refuseUnlessSnapshot(numbers: readonly number[], belowNumber: number): void {
  if (!numbers.some((number) => number >= belowNumber - 1))
    throw new CodedError(
      'no-snapshot',
      `a newcomer needs the blocks below ${belowNumber}: no snapshot holds them`,
    );
}

/** A caller of ours that asks for more has a bug. */
export function checkedLimit(limit: number): number {
  if (!Number.isInteger(limit) || limit < 1 || limit > pageLimitMax) throw new RangeError(`limit ${limit}`);
  return limit;
}
