/**
 * The node's secret key in a file of its own: 64 hex digits, readable by its owner alone. It is created once and never
 * overwritten, because whoever loses it loses the node's identity and what it has earned.
 */
import { link, open, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { generateKeyPair, type KeyPair, keyPairFrom, secretKeyBytes } from '../../identity/keys.ts';
import { fromHex, toHex } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { fileError, readFileBounded, syncFolder, temporarySuffix } from './files.ts';

const mode = 0o600;
const keyFileBytesMax = 2 * secretKeyBytes + 2;
let temporaryCount = 0;

/** The key in the file, or a new one that is there, durably, when the promise resolves. */
export async function loadOrCreateKeyFile(path: string): Promise<KeyPair> {
  if (!(await exists(path))) {
    try {
      return await createKeyFile(path, generateKeyPair());
    } catch (error) {
      // Somebody else was faster: theirs is the key.
      if (!(error instanceof CodedError) || error.code !== 'already-exists') throw error;
    }
  }
  return await loadKeyFile(path);
}

/** Throws `CodedError`: `not-found`, `key-exposed`, `key-damaged`, and those of reading a file. */
export async function loadKeyFile(path: string): Promise<KeyPair> {
  await refuseExposed(path);
  const bytes = await readFileBounded(path, keyFileBytesMax).catch((error) => {
    throw error instanceof CodedError && error.code === 'too-large' ? damaged(path, error) : error;
  });
  const text = new TextDecoder().decode(bytes).trim();
  if (text.length !== 2 * secretKeyBytes) throw damaged(path);
  try {
    return keyPairFrom(fromHex(text));
  } catch (error) {
    throw damaged(path, error);
  }
}

/** Writes the key to a file that must not be there yet: `already-exists`, and those of writing a file. */
export async function createKeyFile(path: string, key: KeyPair): Promise<KeyPair> {
  temporaryCount += 1;
  const temporary = `${path}.${process.pid}.${temporaryCount}${temporarySuffix}`;
  try {
    const file = await open(temporary, 'wx', mode);
    try {
      await file.writeFile(`${toHex(key.secretKey)}\n`);
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
