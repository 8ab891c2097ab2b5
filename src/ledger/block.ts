/**
 * The payload of one ledger block, opaque to consensus: which block it follows, the state it starts from, when and by whom
 * it was made, the proposer's part in the beacon, and the transactions. Knows nothing of votes.
 */
import { fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Transaction, transactionFields, transactionOf } from './transaction.ts';

export interface LedgerBlock {
  /** Counts decided payloads, from 1. */
  readonly number: number;
  /** Hash of block number − 1; 32 zero bytes before the first. */
  readonly parentHash: Uint8Array;
  /** Root of the state after block number − 1: every vote compares it. */
  readonly parentStateRoot: Uint8Array;
  readonly timeMs: number;
  /** Node id. */
  readonly proposer: string;
  /** Next preimage of the proposer's committed chain, 32 bytes. */
  readonly beaconPreimage: Uint8Array | null;
  /** The proposer's promise of a chain, 32 bytes. */
  readonly beaconCommitment: Uint8Array | null;
  readonly transactions: readonly Transaction[];
}

const version = 1;
/** An encoded block; consensus must carry payloads of this size. */
export const blockBytesMax = 128 * 1024;

export function encodeBlock(block: LedgerBlock): Uint8Array {
  const { number, parentHash, parentStateRoot, timeMs, proposer, beaconPreimage, beaconCommitment } = block;
  return encodeCanonical([
    version,
    number,
    parentHash,
    parentStateRoot,
    timeMs,
    fromHex(proposer),
    beaconPreimage,
    beaconCommitment,
    block.transactions.map(transactionFields),
  ]);
}

/** Names the block: what the next one follows. `payload`: its canonical bytes. 32 bytes. */
export function blockHash(networkId: Uint8Array, payload: Uint8Array): Uint8Array {
  return taggedHash('neuroshard/ledger-block/1', networkId, payload);
}

/** Decodes an untrusted payload: the codec's codes, `malformed-block`, `malformed-transaction`. */
export function decodeBlock(payload: Uint8Array): Outcome<LedgerBlock> {
  const decoded = decodeCanonical(payload, blockBytesMax);
  if (!decoded.ok) return decoded;
  const fields = decoded.value;
  if (!Array.isArray(fields) || fields.length !== 9 || fields[0] !== version)
    return reject('malformed-block', 'fields');
  const [, number, parentHash, parentStateRoot, timeMs, proposer, preimage, commitment, entries] =
    fields as unknown[];
  if (!isCount(number) || !isCount(timeMs)) return reject('malformed-block', 'number or time');
  if (!isHash(parentHash) || !isHash(parentStateRoot) || !isHash(proposer))
    return reject('malformed-block', 'hashes');
  if (!isHashOrNull(preimage) || !isHashOrNull(commitment)) return reject('malformed-block', 'beacon');
  if (!Array.isArray(entries)) return reject('malformed-block', 'transactions');
  const transactions: Transaction[] = [];
  for (const [index, entry] of entries.entries()) {
    const transaction = transactionOf(entry);
    if (!transaction.ok) return reject(transaction.code, `transaction ${index}: ${transaction.detail}`);
    transactions.push(transaction.value);
  }
  return accept({
    number,
    parentHash,
    parentStateRoot,
    timeMs,
    proposer: toHex(proposer),
    beaconPreimage: preimage,
    beaconCommitment: commitment,
    transactions,
  });
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isHash(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === 32;
}

function isHashOrNull(value: unknown): value is Uint8Array | null {
  return value === null || isHash(value);
}
