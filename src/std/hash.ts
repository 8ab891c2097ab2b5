/**
 * SHA-256, the one hash of the protocol. The portable implementation runs anywhere; a composition root may
 * install a faster one (`node:crypto`), which must give the same digests (the contract suite checks it).
 */
import { sha256 as portableSha256 } from '@noble/hashes/sha2.js';
import { concatBytes, toHex, utf8 } from './bytes.ts';

export type Sha256 = (bytes: Uint8Array) => Uint8Array;

/** A digest as lower-case hex: the form used as a map key, in JSON and in logs. */
export type HashHex = string;

let implementation: Sha256 = (bytes) => portableSha256(bytes);

/** 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return implementation(parts.length === 1 ? parts[0]! : concatBytes(...parts));
}

export function sha256Hex(...parts: readonly Uint8Array[]): HashHex {
  return toHex(sha256(...parts));
}

/** Digest of a domain tag and parts: two kinds of object can never share a preimage. */
export function taggedHash(tag: string, ...parts: readonly Uint8Array[]): Uint8Array {
  const tagBytes = utf8(tag);
  return sha256(new Uint8Array([tagBytes.length]), tagBytes, ...parts);
}

/** Called once by a composition root, before anything is hashed. */
export function installSha256(faster: Sha256): void {
  implementation = faster;
}

export { portableSha256 };
