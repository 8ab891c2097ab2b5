/**
 * A secret key under a passphrase: scrypt makes a key of it, AES-256-GCM hides the secret and notices any change. The
 * public key stays readable, so an address needs no passphrase. Sources: RFC 7914 (scrypt), NIST SP 800-38D (GCM).
 */
import { createCipheriv, createDecipheriv, randomBytes, scrypt } from 'node:crypto';
import { z } from 'zod';
import { type KeyPair, keyPairFrom, nodeIdOf } from '../../identity/keys.ts';
import { equalBytes, fromHex, toHex, utf8 } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';

const version = 1;
/** 128 MiB and some tenths of a second for each guess. */
const costs = { n: 2 ** 17, r: 8, p: 1 };
const tagBytes = 16;
export const encryptedKeyBytesMax = 2048;
/** Normalised: one passphrase typed on two keyboards is one. */
const passphraseBytesMax = 1024;

const hex = (bytes: number) => z.string().regex(new RegExp(`^[0-9a-f]{${2 * bytes}}$`));

/** A file that asks for more work than this is not ours, and must not stop the machine. */
const schema = z.strictObject({
  version: z.literal(version),
  publicKey: hex(33),
  kdf: z.literal('scrypt'),
  n: z.literal([2 ** 14, 2 ** 15, 2 ** 16, 2 ** 17, 2 ** 18, 2 ** 19, 2 ** 20]),
  r: z.literal(8),
  p: z.number().int().min(1).max(4),
  salt: hex(32),
  cipher: z.literal('aes-256-gcm'),
  nonce: hex(12),
  sealed: hex(32 + tagBytes),
});

export type EncryptedKey = z.infer<typeof schema>;

/** One line of JSON. Throws CodedError `bad-passphrase` for one that is empty or too long. */
export async function encryptKey(key: KeyPair, passphrase: string, work = costs): Promise<string> {
  const salt = randomBytes(32);
  const nonce = randomBytes(12);
  const header = {
    ...{ version, publicKey: toHex(key.publicKey), kdf: 'scrypt', ...work, salt: toHex(salt) },
    ...{ cipher: 'aes-256-gcm', nonce: toHex(nonce) },
  } as const;
  const cipher = createCipheriv('aes-256-gcm', await derive(passphrase, salt, work), nonce);
  cipher.setAAD(associated(header));
  const sealed = Buffer.concat([cipher.update(key.secretKey), cipher.final(), cipher.getAuthTag()]);
  return JSON.stringify({ ...header, sealed: toHex(sealed) });
}

/** Undefined when the text is no encrypted key. */
export function parseEncryptedKey(text: string): EncryptedKey | undefined {
  try {
    const parsed = schema.safeParse(JSON.parse(text));
    return parsed.success ? parsed.data : undefined;
  } catch {
    return undefined;
  }
}

/** Known without the passphrase; a changed one is noticed when the key is opened. */
export function encryptedNodeId({ publicKey }: EncryptedKey): string {
  return nodeIdOf(fromHex(publicKey));
}

/** Throws CodedError `wrong-passphrase`: which of the two it is, nobody can tell from a changed file. */
export async function decryptKey(encrypted: EncryptedKey, passphrase: string): Promise<KeyPair> {
  const { sealed, n, r, p } = encrypted;
  const derived = await derive(passphrase, fromHex(encrypted.salt), { n, r, p });
  try {
    const bytes = fromHex(sealed);
    const decipher = createDecipheriv('aes-256-gcm', derived, fromHex(encrypted.nonce), {
      authTagLength: tagBytes,
    });
    decipher.setAAD(associated(encrypted));
    decipher.setAuthTag(bytes.subarray(-tagBytes));
    const secret = Buffer.concat([decipher.update(bytes.subarray(0, -tagBytes)), decipher.final()]);
    const key = keyPairFrom(new Uint8Array(secret));
    if (!equalBytes(key.publicKey, fromHex(encrypted.publicKey))) throw new Error('another key');
    return key;
  } catch (error) {
    throw new CodedError('wrong-passphrase', 'the passphrase is wrong, or the key file is damaged', {
      cause: error,
    });
  }
}

/** All that is not hidden is bound to what is. */
function associated(
  header: Pick<EncryptedKey, 'publicKey' | 'n' | 'p' | 'salt' | 'nonce'> & { readonly r: number },
): Uint8Array {
  const { publicKey, n, r, p, salt, nonce } = header;
  return utf8(['neuroshard/key/1', publicKey, n, r, p, salt, nonce].join(' '));
}

function derive(passphrase: string, salt: Uint8Array, { n, r, p }: typeof costs): Promise<Buffer> {
  const bytes = utf8(passphrase.normalize('NFKC'));
  if (bytes.length === 0 || bytes.length > passphraseBytesMax) {
    const form = `a passphrase has 1 to ${passphraseBytesMax} bytes`;
    return Promise.reject(new CodedError('bad-passphrase', form));
  }
  return new Promise((resolve, reject) => {
    const options = { N: n, r, p, maxmem: 128 * n * r * 2 };
    scrypt(bytes, salt, 32, options, (error, derived) => (error ? reject(error) : resolve(derived)));
  });
}
