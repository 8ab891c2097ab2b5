/**
 * A payer's receipt: how much of an escrow it owes in all by now. Each replaces the one before, so the payee needs only
 * the newest and a lost one costs nothing. Travels between the two; the ledger sees it in a claim.
 */
import { type KeyPair, signDigest, verifyDigest } from '../identity/keys.ts';
import { fromHex } from '../std/bytes.ts';
import { encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import type { Amount } from './tables.ts';

export interface PaymentReceipt {
  /** Id of the escrow, hex. */
  readonly escrow: string;
  /** Of all that was served so far. */
  readonly amount: Amount;
  /** The payer's, compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

function digestOf(networkId: Uint8Array, { escrow, amount }: Pick<PaymentReceipt, 'escrow' | 'amount'>) {
  return taggedHash('neuroshard/receipt/1', networkId, encodeCanonical([fromHex(escrow), amount]));
}

export function signReceipt(
  networkId: Uint8Array,
  owed: Pick<PaymentReceipt, 'escrow' | 'amount'>,
  payer: KeyPair,
): PaymentReceipt {
  const signature = signDigest(digestOf(networkId, owed), payer.secretKey);
  return { ...owed, publicKey: payer.publicKey, signature };
}

/** Whether the key inside signed it; whether that is the payer's, the caller judges. */
export function verifyReceipt(networkId: Uint8Array, receipt: PaymentReceipt): boolean {
  return verifyDigest(digestOf(networkId, receipt), receipt.signature, receipt.publicKey);
}
