/**
 * secp256k1 keys, signatures and node ids. Signatures are ECDSA over SHA-256 digests, 64 bytes compact, low-S only;
 * a high-S or malformed signature never verifies. Source: SEC 1 and BIP 62 (low-S).
 */
import { secp256k1 } from '@noble/curves/secp256k1.js';
import { toHex } from '../std/bytes.ts';
import { sha256 } from '../std/hash.ts';

export interface KeyPair {
  /** 32 bytes. */
  readonly secretKey: Uint8Array;
  /** 33 bytes, compressed. */
  readonly publicKey: Uint8Array;
  /** SHA-256 of the compressed public key, hex. */
  readonly nodeId: string;
}

export const secretKeyBytes = 32;
export const publicKeyBytes = 33;
export const signatureBytes = 64;

export function nodeIdOf(publicKey: Uint8Array): string {
  return toHex(sha256(publicKey));
}

/** Throws RangeError when the bytes are not a secret key (zero, or not below the group order). */
export function keyPairFrom(secretKey: Uint8Array): KeyPair {
  if (!secp256k1.utils.isValidSecretKey(secretKey)) throw new RangeError('not a secp256k1 secret key');
  const publicKey = secp256k1.getPublicKey(secretKey, true);
  return { secretKey, publicKey, nodeId: nodeIdOf(publicKey) };
}

/** Whether the bytes are a compressed public key: a point of the curve. */
export function isPublicKey(bytes: Uint8Array): boolean {
  return bytes.length === publicKeyBytes && secp256k1.utils.isValidPublicKey(bytes, true);
}

/** A fresh key from the platform's secure randomness (`crypto.getRandomValues`). */
export function generateKeyPair(): KeyPair {
  return keyPairFrom(secp256k1.utils.randomSecretKey());
}

/** Signs a 32-byte digest deterministically (RFC 6979). */
export function signDigest(digest: Uint8Array, secretKey: Uint8Array): Uint8Array {
  return secp256k1.sign(digest, secretKey, { prehash: false, lowS: true });
}

/**
 * Signatures that have verified, newest last. The same announcement comes by gossip, in a proposal, in a decided list
 * and in catch-up, and a verification costs more than a millisecond of the thread that must answer the network.
 */
const verified = new Set<string>();
const verifiedMax = 4096;

export function verifyDigest(digest: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  if (signature.length !== signatureBytes || publicKey.length !== publicKeyBytes || digest.length !== 32)
    return false;
  const key = toHex(signature) + toHex(digest) + toHex(publicKey);
  if (verified.has(key)) return true;
  try {
    if (!secp256k1.verify(signature, digest, publicKey, { prehash: false, lowS: true })) return false;
  } catch {
    return false;
  }
  verified.add(key);
  for (const oldest of verified) {
    if (verified.size <= verifiedMax) break;
    verified.delete(oldest);
  }
  return true;
}
