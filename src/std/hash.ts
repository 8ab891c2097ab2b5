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

/** Parts up to this size together are joined in one buffer that is used again: hashing a state makes no garbage. */
const joinedBytesMax = 512 * 1024;
let joined: Uint8Array | undefined;

/** 32 bytes. */
export function sha256(...parts: readonly Uint8Array[]): Uint8Array {
  return implementation(parts.length === 1 ? parts[0]! : join(parts));
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  let length = 0;
  for (const part of parts) length += part.length;
  if (length < 1024 || length > joinedBytesMax) return concatBytes(...parts);
  joined ??= new Uint8Array(joinedBytesMax);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined.subarray(0, length);
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
