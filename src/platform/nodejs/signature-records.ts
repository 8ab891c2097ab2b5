/** Signed digests one behind the other in one array of bytes, as they go to another thread. */
import { publicKeyBytes, type SignedDigest, signatureBytes } from '../../identity/keys.ts';

const digestBytes = 32;
export const recordBytes = digestBytes + signatureBytes + publicKeyBytes;

/** Whether each part has its one length; what has not is no signature. */
function fitsRecord({ digest, signature, publicKey }: SignedDigest): boolean {
  return (
    digest.length === digestBytes &&
    signature.length === signatureBytes &&
    publicKey.length === publicKeyBytes
  );
}

/** Those that do not fit are zeros: no public key, so never right. */
export function packRecords(all: readonly SignedDigest[]): Uint8Array<ArrayBuffer> {
  const records = new Uint8Array(all.length * recordBytes);
  for (const [index, one] of all.entries()) {
    if (!fitsRecord(one)) continue;
    const start = index * recordBytes;
    records.set(one.digest, start);
    records.set(one.signature, start + digestBytes);
    records.set(one.publicKey, start + digestBytes + signatureBytes);
  }
  return records;
}

export function recordParts(records: Uint8Array, index: number): SignedDigest {
  const start = index * recordBytes;
  const [signatureAt, keyAt] = [start + digestBytes, start + digestBytes + signatureBytes];
  return {
    digest: records.subarray(start, signatureAt),
    signature: records.subarray(signatureAt, keyAt),
    publicKey: records.subarray(keyAt, start + recordBytes),
  };
}
