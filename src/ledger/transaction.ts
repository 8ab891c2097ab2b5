/**
 * A transaction as bytes, its name and its signature. What its body means is the business of its kind's rule; whether the
 * author may do it, that of `apply.ts`.
 */
import { type KeyPair, publicKeyBytes, signatureBytes, signDigest, verifyDigest } from '../identity/keys.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { TransactionRule } from './rules.ts';

export interface Transaction {
  readonly kind: string;
  readonly body: Canonical;
  /** Larger than that of the author's transaction before; 0 without an author. */
  readonly nonce: number;
  /** Compressed, 33 bytes; null for one that the block's proposer puts in. */
  readonly publicKey: Uint8Array | null;
  /** Compact, 64 bytes, low-S; null likewise. */
  readonly signature: Uint8Array | null;
}

/** One that an author signs; those a proposer puts in are bounded by the block. */
export const transactionBytesMax = 16 * 1024;
const kindCharactersMax = 32;

/**
 * Names the transaction, and is what its author signs: everything but the signature, so a copy with another signature is
 * the same transaction. 32 bytes.
 */
export function transactionId(networkId: Uint8Array, transaction: Transaction): Uint8Array {
  const { kind, nonce, body, publicKey } = transaction;
  return taggedHash('neuroshard/transaction/1', networkId, encodeCanonical([kind, nonce, body, publicKey]));
}

export interface TransactionDraft<Body> {
  readonly body: Body;
  readonly nonce: number;
}

export function signTransaction<Body>(
  networkId: Uint8Array,
  rule: TransactionRule<Body>,
  { body, nonce }: TransactionDraft<Body>,
  key: KeyPair,
): Transaction {
  const { publicKey } = key;
  const unsigned = { kind: rule.kind, body: rule.encode(body), nonce, publicKey, signature: null };
  return { ...unsigned, signature: signDigest(transactionId(networkId, unsigned), key.secretKey) };
}

/** What a proposer puts in. */
export function unsignedTransaction<Body>(rule: TransactionRule<Body>, body: Body): Transaction {
  return { kind: rule.kind, body: rule.encode(body), nonce: 0, publicKey: null, signature: null };
}

/** Its place in a block. */
export function transactionFields({ kind, nonce, body, publicKey, signature }: Transaction): Canonical {
  return [kind, nonce, body, publicKey, signature];
}

export function encodeTransaction(transaction: Transaction): Uint8Array {
  return encodeCanonical(transactionFields(transaction));
}

/** Checks the envelope of decoded fields: `malformed-transaction`. The body is whatever it is. */
export function transactionOf(fields: unknown): Outcome<Transaction> {
  if (!Array.isArray(fields) || fields.length !== 5) return reject('malformed-transaction', 'fields');
  const [kind, nonce, body, publicKey, signature] = fields as unknown[];
  if (typeof kind !== 'string' || kind.length > kindCharactersMax)
    return reject('malformed-transaction', 'kind');
  if (typeof nonce !== 'number' || !Number.isSafeInteger(nonce) || nonce < 0)
    return reject('malformed-transaction', 'nonce');
  if (publicKey === null && signature === null)
    return accept({ kind, nonce, body: body as Canonical, publicKey, signature });
  if (!(publicKey instanceof Uint8Array) || publicKey.length !== publicKeyBytes)
    return reject('malformed-transaction', 'public key');
  if (!(signature instanceof Uint8Array) || signature.length !== signatureBytes)
    return reject('malformed-transaction', 'signature');
  return accept({ kind, nonce, body: body as Canonical, publicKey, signature });
}

/** Decodes untrusted bytes: the codec's codes and `malformed-transaction`. */
export function decodeTransaction(bytes: Uint8Array): Outcome<Transaction> {
  const decoded = decodeCanonical(bytes, transactionBytesMax);
  return decoded.ok ? transactionOf(decoded.value) : decoded;
}

/** Whether the signature is the key's over the id. */
export type VerifySignature = (transaction: Transaction, id: Uint8Array) => boolean;

export function verifyTransaction(transaction: Transaction, id: Uint8Array): boolean {
  const { publicKey, signature } = transaction;
  return publicKey !== null && signature !== null && verifyDigest(id, signature, publicKey);
}
