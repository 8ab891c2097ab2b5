/** A receipt as it travels from payer to payee, and as the payee keeps it. Knows no escrow. */
import { z } from 'zod';
import { publicKeyBytes, signatureBytes } from '../identity/keys.ts';
import { amountField, bytesField, counterField, hashField } from '../ledger/body.ts';
import type { PaymentReceipt } from '../ledger/receipt.ts';
import { receiptProtocol } from '../net/protocol.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

const fields = [hashField, amountField, bytesField(publicKeyBytes), bytesField(signatureBytes)] as const;
const receiptSchema = z.tuple(fields);
const keptSchema = z.tuple([...fields, counterField]);

function read([escrow, amount, publicKey, signature]: z.infer<typeof receiptSchema>): PaymentReceipt {
  return { escrow: toHex(escrow), amount, publicKey, signature };
}

/** Wire: [escrow b32, amount, payer's public key b33, signature b64]. */
export function encodeReceipt({ escrow, amount, publicKey, signature }: PaymentReceipt): Uint8Array {
  return encodeCanonical([fromHex(escrow), amount, publicKey, signature]);
}

/** `too-large`, `not-canonical`, `malformed`. Whether it is worth anything, the ledger's state says. */
export function decodeReceipt(bytes: Uint8Array): Outcome<PaymentReceipt> {
  const decoded = decodeCanonical(bytes, receiptProtocol.requestBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = receiptSchema.safeParse(decoded.value);
  return parsed.success ? accept(read(parsed.data)) : reject('malformed');
}

export interface KeptReceipt extends PaymentReceipt {
  /** Of its escrow: long after that nobody can claim with it. */
  readonly expiresMs: number;
}

export function encodeKept(kept: KeptReceipt): Uint8Array {
  const { escrow, amount, publicKey, signature, expiresMs } = kept;
  return encodeCanonical([fromHex(escrow), amount, publicKey, signature, expiresMs]);
}

export function decodeKept(bytes: Uint8Array): Outcome<KeptReceipt> {
  const decoded = decodeCanonical(bytes, 2 * receiptProtocol.requestBytesMax);
  if (!decoded.ok) return decoded;
  const parsed = keptSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed');
  const [escrow, amount, publicKey, signature, expiresMs] = parsed.data;
  return accept({ ...read([escrow, amount, publicKey, signature]), expiresMs });
}
