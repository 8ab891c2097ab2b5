/**
 * The node's secret key in a file of its own: 64 hex digits, or the same under a passphrase, readable by its owner alone.
 * It is created once and never overwritten, because whoever loses it loses the node's identity and what it has earned.
 */
import { link, open, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { generateKeyPair, type KeyPair, keyPairFrom, secretKeyBytes } from '../../identity/keys.ts';
import { fromHex, toHex } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { fileError, readFileBounded, syncFolder, temporarySuffix } from './files.ts';
import {
  decryptKey,
  type EncryptedKey,
  encryptedKeyBytesMax,
  encryptedNodeId,
  encryptKey,
  parseEncryptedKey,
} from './key-encryption.ts';

const mode = 0o600;
let temporaryCount = 0;

/** Asked only when there is something to open or to hide. */
export type Passphrase = () => Promise<string>;

/**
 * The key in the file, or a new one that is there, durably, when the promise resolves; a new one is not hidden. Throws as
 * `loadKeyFile` and `createKeyFile` do.
 */
export async function loadOrCreateKeyFile(path: string, passphrase?: Passphrase): Promise<KeyPair> {
  if (!(await exists(path))) {
    try {
      return await createKeyFile(path, generateKeyPair());
    } catch (error) {
      // Somebody else was faster: theirs is the key.
      if (!(error instanceof CodedError) || error.code !== 'already-exists') throw error;
    }
  }
  return await loadKeyFile(path, passphrase);
}

/**
 * Throws `CodedError`: `not-found`, `key-exposed`, `key-damaged`, `passphrase-needed`, `wrong-passphrase`, and those of
 * reading a file.
 */
export async function loadKeyFile(path: string, passphrase?: Passphrase): Promise<KeyPair> {
  const found = await readKey(path);
  if ('secretKey' in found) return found;
  if (!passphrase)
    throw new CodedError('passphrase-needed', `the key in ${path} is encrypted: give its passphrase`);
  return await decryptKey(found, await passphrase());
}

/** Whose key it is; an encrypted one stays closed. Throws as `loadKeyFile` does, but for passphrases. */
export async function inspectKeyFile(
  path: string,
): Promise<{ readonly nodeId: string; readonly encrypted: boolean }> {
  const found = await readKey(path);
  return 'secretKey' in found
    ? { nodeId: found.nodeId, encrypted: false }
    : { nodeId: encryptedNodeId(found), encrypted: true };
}

async function readKey(path: string): Promise<KeyPair | EncryptedKey> {
  await refuseExposed(path);
  const bytes = await readFileBounded(path, encryptedKeyBytesMax).catch((error) => {
    throw error instanceof CodedError && error.code === 'too-large' ? damaged(path, error) : error;
  });
  const text = new TextDecoder().decode(bytes).trim();
  const encrypted = parseEncryptedKey(text);
  if (encrypted) return encrypted;
  if (text.length !== 2 * secretKeyBytes) throw damaged(path);
  try {
    return keyPairFrom(fromHex(text));
  } catch (error) {
    throw damaged(path, error);
  }
}

/**
 * Writes the key to a file that must not be there yet, hidden if there is a passphrase: `already-exists`,
 * `bad-passphrase`, and those of writing a file.
 */
export async function createKeyFile(path: string, key: KeyPair, passphrase?: string): Promise<KeyPair> {
  const content = passphrase === undefined ? toHex(key.secretKey) : await encryptKey(key, passphrase);
  temporaryCount += 1;
  const temporary = `${path}.${process.pid}.${temporaryCount}${temporarySuffix}`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(`${content}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    // Unlike a rename, a link fails when the target is there, and like it the file is whole or not there.
    await link(temporary, path);
    await syncFolder(dirname(path));
    return key;
  } catch (error) {
    throw fileError(error, 'create the key file', path);
  } finally {
    await rm(temporary, { force: true }).catch(() => undefined);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return false;
    throw fileError(error, 'read', path);
  }
}

async function refuseExposed(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const { mode: found } = await stat(path).catch((error) => {
    throw fileError(error, 'read', path);
  });
  if ((found & 0o077) === 0) return;
  const octal = (found & 0o777).toString(8);
  throw new CodedError(
    'key-exposed',
    `other users can reach the key file ${path} (mode ${octal}): chmod 600 it`,
  );
}

function damaged(path: string, cause?: unknown): CodedError {
  return new CodedError('key-damaged', `${path} is damaged: it does not hold a secret key`, { cause });
}
