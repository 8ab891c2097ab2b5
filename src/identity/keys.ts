/**
 * secp256k1 keys, signatures and node ids. Signatures are ECDSA over SHA-256 digests, 64 bytes compact, low-S only;
 * a high-S or malformed signature never verifies. The arithmetic is libsecp256k1's, compiled to wasm: one implementation
 * wherever JavaScript runs. Source: SEC 1, RFC 6979 and BIP 62 (low-S).
 */
import { isPointCompressed, isPrivate, pointCompress, pointFromScalar, sign, verify } from 'tiny-secp256k1';
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

/** What `verifyDigest` is asked. */
export interface SignedDigest {
  /** 32 bytes. */
  readonly digest: Uint8Array;
  readonly signature: Uint8Array;
  readonly publicKey: Uint8Array;
}

/** `verifyDigest` of each, in order, somewhere else; rejects when it cannot be done there. */
export type VerifyMany = (signed: readonly SignedDigest[]) => Promise<readonly boolean[]>;

export const secretKeyBytes = 32;
export const publicKeyBytes = 33;
export const signatureBytes = 64;

export function nodeIdOf(publicKey: Uint8Array): string {
  return toHex(sha256(publicKey));
}

/** Throws RangeError when the bytes are not a secret key (zero, or not below the group order). */
export function keyPairFrom(secretKey: Uint8Array): KeyPair {
  const publicKey = isPrivate(secretKey) ? pointFromScalar(secretKey, true) : null;
  if (publicKey === null) throw new RangeError('not a secp256k1 secret key');
  return { secretKey, publicKey, nodeId: nodeIdOf(publicKey) };
}

/** Whether the bytes are a compressed public key: a point of the curve. */
export function isPublicKey(bytes: Uint8Array): boolean {
  return isPointCompressed(bytes);
}

/** A fresh key from the platform's secure randomness (`crypto.getRandomValues`). */
export function generateKeyPair(): KeyPair {
  const secretKey = new Uint8Array(secretKeyBytes);
  do crypto.getRandomValues(secretKey);
  while (!isPrivate(secretKey));
  return keyPairFrom(secretKey);
}

/** Signs a 32-byte digest deterministically (RFC 6979), low-S. */
export function signDigest(digest: Uint8Array, secretKey: Uint8Array): Uint8Array {
  return sign(digest, secretKey);
}

/**
 * Public keys met lately, uncompressed, by their hex: the same few sign nearly everything, and to take the square root
 * that gives back a point's other half, twice, is a seventh of a verification.
 */
const points = new Map<string, Uint8Array>();
const pointsMax = 4096;

/** The uncompressed form of a compressed public key; undefined when it is none. */
function pointOf(publicKey: Uint8Array): Uint8Array | undefined {
  if (publicKey.length !== publicKeyBytes) return undefined;
  const name = toHex(publicKey);
  const known = points.get(name);
  if (known) return known;
  // The wasm leaves its stack where it was when it throws over bytes that are no point, and has no stack left after
  // some thousand of them: such keys must not get to it.
  if (!isPublicKey(publicKey)) return undefined;
  const point = pointCompress(publicKey, false);
  points.set(name, point);
  if (points.size > pointsMax) points.delete(points.keys().next().value!);
  return point;
}

/** Whether a signature is the key's over the digest. Bytes of other lengths, or that mean nothing, are no signature. */
export function verifyDigest(digest: Uint8Array, signature: Uint8Array, publicKey: Uint8Array): boolean {
  const point = pointOf(publicKey);
  if (!point) return false;
  try {
    return verify(digest, point, signature, true);
  } catch {
    return false;
  }
}
