/**
 * Signatures as an ideal box: a keyed hash that only the owner can make and the box alone can check. They cost
 * microseconds where secp256k1 costs hundreds, so many seeds fit into seconds; hostile programs get no secret key
 * but their own, which keeps them unable to forge.
 */
import { createHmac } from 'node:crypto';
import type { SignatureScheme } from '../src/consensus/types.ts';
import type { KeyPair } from '../src/identity/keys.ts';
import { concatBytes, equalBytes, toHex } from '../src/std/bytes.ts';

export function idealSignatures(keys: readonly KeyPair[]): SignatureScheme {
  const secrets = new Map(keys.map((key) => [toHex(key.publicKey), key.secretKey]));
  const mac = (digest: Uint8Array, secret: Uint8Array) => {
    const half = new Uint8Array(createHmac('sha256', secret).update(digest).digest());
    return concatBytes(half, half);
  };
  return {
    sign: (digest, key) => mac(digest, key.secretKey),
    verify(digest, signature, publicKey) {
      const secret = secrets.get(toHex(publicKey));
      return secret !== undefined && equalBytes(signature, mac(digest, secret));
    },
  };
}
