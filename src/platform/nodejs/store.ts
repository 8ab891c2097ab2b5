/**
 * A `Store` on a folder: one file for each key, replaced atomically, so a crash leaves the old or the new value. All
 * disk work is asynchronous: the I/O thread never waits for it. Knows nothing of what the values mean.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { CodedError } from '../../std/outcome.ts';
import { copiedBytesMax, type Store } from '../../std/store.ts';
import { createFolder, fileError, removeTemporaries, syncFolder, writeFileAtomic } from './files.ts';

const suffix = '.value';
/** What common file systems allow for a name, less the suffixes of the value and of its temporary file. */
const nameLengthMax = 200;

/** Opens the folder, creating it, and clears what a crash left unfinished. One process at a time. */
export async function folderStore(folder: string): Promise<Store> {
  await createFolder(folder, 0o700);
  await removeTemporaries(folder);
  const inOrder = keyedQueue();
  return {
    async get(key) {
      const path = pathOf(folder, key);
      return inOrder(key, async () => {
        try {
          return new Uint8Array(await readFile(path));
        } catch (error) {
          if (isMissing(error)) return undefined;
          throw fileError(error, 'read', path);
        }
      });
    },
    async put(key, value) {
      const path = pathOf(folder, key);
      const copy = value.length > copiedBytesMax ? value : value.slice();
      return inOrder(key, () => writeFileAtomic(path, copy, { mode: 0o600 }));
    },
    async delete(key) {
      const path = pathOf(folder, key);
      return inOrder(key, async () => {
        try {
          await rm(path, { force: true });
          await syncFolder(folder);
        } catch (error) {
          throw fileError(error, 'delete', path);
        }
      });
    },
    async list(prefix) {
      const names = await readdir(folder).catch((error: unknown) => {
        throw fileError(error, 'list', folder);
      });
      const keys = names.filter((name) => name.endsWith(suffix)).map(keyOf);
      return keys.filter((key) => key.startsWith(prefix)).sort();
    },
  };
}

function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ENOENT';
}

/** Lower-case letters, digits, `-` and `_` stand for themselves: distinct keys also differ where case does not count. */
function pathOf(folder: string, key: string): string {
  let name = '';
  for (const byte of new TextEncoder().encode(key)) {
    const character = String.fromCharCode(byte);
    name += /[a-z0-9_-]/.test(character) ? character : `%${byte.toString(16).padStart(2, '0')}`;
  }
  if (name.length > nameLengthMax)
    throw new CodedError('key-too-long', `a store key has ${name.length} characters`);
  return join(folder, `${name}${suffix}`);
}

function keyOf(name: string): string {
  return decodeURIComponent(name.slice(0, -suffix.length));
}

/** Runs tasks of one key one after the other, in the order they were asked for; different keys run side by side. */
function keyedQueue(): <T>(key: string, task: () => Promise<T>) => Promise<T> {
  const tails = new Map<string, Promise<unknown>>();
  return (key, task) => {
    const result = (tails.get(key) ?? Promise.resolve()).then(task, task);
    tails.set(key, result);
    const forget = () => {
      if (tails.get(key) === result) tails.delete(key);
    };
    result.then(forget, forget);
    return result;
  };
}
