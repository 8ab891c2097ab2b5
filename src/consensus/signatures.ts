/** The signature scheme of real networks: secp256k1 of `identity/`. */
import { signDigest, verifyDigest } from '../identity/keys.ts';
import type { SignatureScheme } from './types.ts';

export const secp256k1Signatures: SignatureScheme = {
  sign: (digest, key) => signDigest(digest, key.secretKey),
  verify: verifyDigest,
};
