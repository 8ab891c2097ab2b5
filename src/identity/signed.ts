/**
 * Signed objects: a canonical body with the signer's public key and signature. The signature covers a tag and the
 * body's hash, so a signature for one kind of object can never pass for another kind.
 */
import { type Canonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { type KeyPair, signDigest, verifyDigest } from './keys.ts';

export interface Signed<Body> {
  readonly body: Body;
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  /** Compact, 64 bytes. */
  readonly signature: Uint8Array;
}

/** What is signed, and what names the object: signature copies of one body have one hash. */
export function bodyHash(tag: string, body: Canonical): Uint8Array {
  return taggedHash(tag, encodeCanonical(body));
}

export function signBody<Body extends Canonical>(tag: string, body: Body, key: KeyPair): Signed<Body> {
  return { body, publicKey: key.publicKey, signature: signDigest(bodyHash(tag, body), key.secretKey) };
}

/**
 * Whether the signature is right for the body and key inside; whose key it is, the caller judges. A body without a
 * canonical form (it may come from a hostile decoder's output) verifies never, and throws never.
 */
export function verifySigned<Body extends Canonical>(tag: string, signed: Signed<Body>): boolean {
  let digest: Uint8Array;
  try {
    digest = bodyHash(tag, signed.body);
  } catch {
    return false;
  }
  return verifyDigest(digest, signed.signature, signed.publicKey);
}
