/**
 * One running node for each data folder: two with one key would vote twice, and write over each other's snapshots. The
 * lock is the operating system's, taken by SQLite on a file that stays empty, so it ends with the process however that
 * ends, and no file left by a killed node has to be judged stale. It knows nothing of what the folder holds.
 */
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { CodedError } from '../../std/outcome.ts';

const lockFile = 'lock';
/** SQLITE_BUSY, https://www.sqlite.org/rescode.html; extended codes carry it in their low byte. */
const busy = 5;

/**
 * Takes the lock of a folder that exists; the result gives it back. Throws CodedError `folder-in-use` when another
 * process (or another part of this one) has it, `folder-lock-failed` when it cannot be asked for.
 */
export function lockFolder(directory: string): () => void {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(join(directory, lockFile), { timeout: 0 });
    database.exec('PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE');
    const held = database;
    return () => {
      if (held.isOpen) held.close();
    };
  } catch (error) {
    if (database?.isOpen) database.close();
    const { errcode = 0, message } = error as Error & { errcode?: number };
    throw (errcode & 0xff) === busy
      ? new CodedError(
          'folder-in-use',
          `another node is running in ${directory}; stop it or use another folder`,
        )
      : new CodedError('folder-lock-failed', `cannot lock ${directory}: ${message}`, { cause: error });
  }
}
