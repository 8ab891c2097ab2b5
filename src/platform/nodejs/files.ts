/**
 * Files that are whole or not there: a write goes to a temporary file beside its target, reaches the disk, and is
 * renamed over it. What goes wrong on the way is one `CodedError` that names the file. Knows nothing of formats.
 */
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { CodedError } from '../../std/outcome.ts';

export const temporarySuffix = '.tmp';

const reasons: Readonly<Record<string, readonly [code: string, text: string]>> = {
  ENOSPC: ['disk-full', 'no space left on the disk'],
  EDQUOT: ['disk-full', 'the disk quota is used up'],
  EFBIG: ['disk-full', 'the file would be larger than the system allows'],
  ENOENT: ['not-found', 'no such file or folder'],
  EACCES: ['permission-denied', 'permission denied'],
  EPERM: ['permission-denied', 'permission denied'],
  EROFS: ['permission-denied', 'the disk is read-only'],
  EISDIR: ['not-a-file', 'it is a folder'],
  ENOTDIR: ['not-a-folder', 'a part of the path is not a folder'],
  EEXIST: ['already-exists', 'it already exists'],
  ENAMETOOLONG: ['bad-path', 'the name is too long'],
  EMFILE: ['too-many-files', 'too many open files'],
  ENFILE: ['too-many-files', 'too many open files'],
};

/** The failure of a file operation, as one line naming what was wanted and why not. */
export function fileError(error: unknown, action: string, path: string): CodedError {
  if (error instanceof CodedError) return error;
  const errno = error instanceof Error && 'code' in error ? String(error.code) : '';
  const [code, text] = reasons[errno] ?? [
    'file-error',
    error instanceof Error ? error.message : String(error),
  ];
  return new CodedError(code, `cannot ${action} ${path}: ${text}`, { cause: error });
}

/** What is written: bytes, or pieces of a large file in order. */
export type Content = Uint8Array | Iterable<Uint8Array> | AsyncIterable<Uint8Array>;

export interface WriteOptions {
  /** Permission bits; 0o600 for keys. */
  readonly mode?: number;
  /** How the temporary file is opened: a test hands in a disk that is full. */
  readonly openFile?: typeof open;
}

let temporaryCount = 0;

/**
 * Replaces the file, durably, when the promise resolves; after a failure (`disk-full`, `permission-denied`, …) or a
 * crash the old content is there, whole.
 */
export async function writeFileAtomic(
  path: string,
  content: Content,
  options: WriteOptions = {},
): Promise<void> {
  temporaryCount += 1;
  const temporary = `${path}.${process.pid}.${temporaryCount}${temporarySuffix}`;
  try {
    const file = await (options.openFile ?? open)(temporary, 'wx', options.mode ?? 0o644);
    try {
      for await (const piece of content instanceof Uint8Array ? [content] : content)
        await writeAll(file, piece);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => undefined);
    throw fileError(error, 'write', path);
  }
}

async function writeAll(file: FileHandle, piece: Uint8Array): Promise<void> {
  for (let offset = 0; offset < piece.length; ) {
    const { bytesWritten } = await file.write(piece, offset, piece.length - offset);
    offset += bytesWritten;
  }
}

/** Makes a rename or deletion inside the folder durable; where folders cannot be synced (Windows) it is a no-op. */
export async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/** The whole file; `too-large` before more than `bytesMax` bytes are in memory. */
export async function readFileBounded(path: string, bytesMax: number): Promise<Uint8Array> {
  try {
    const file = await open(path, 'r');
    try {
      const { size } = await file.stat();
      if (size > bytesMax)
        throw new CodedError('too-large', `${path} has ${size} bytes, at most ${bytesMax}`);
      return await readToEnd(file, size, bytesMax, path);
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fileError(error, 'read', path);
  }
}

/** Node counts the bytes of one read in 32 bits. */
const readBytesMax = 1024 ** 3;

/** Reads on past the size that was announced: pipes and growing files say less than they hold. */
async function readToEnd(
  file: FileHandle,
  size: number,
  bytesMax: number,
  path: string,
): Promise<Uint8Array> {
  let bytes = new Uint8Array(size + 1);
  let length = 0;
  for (;;) {
    const { bytesRead } = await file.read(bytes, length, Math.min(bytes.length - length, readBytesMax));
    if (bytesRead === 0) return bytes.subarray(0, length);
    length += bytesRead;
    if (length > bytesMax) throw new CodedError('too-large', `${path} has more than ${bytesMax} bytes`);
    if (length < bytes.length) continue;
    const larger = new Uint8Array(Math.min(2 * length, bytesMax) + 1);
    larger.set(bytes);
    bytes = larger;
  }
}

/** Creates the folder and those above it. */
export async function createFolder(path: string, mode = 0o755): Promise<void> {
  try {
    await makeFolders(path, mode);
  } catch (error) {
    throw fileError(error, 'create the folder', path);
  }
}

/**
 * Node's own recursive mkdir calls a read-only disk a missing folder, and never ends where the system says of every
 * name that it is missing.
 */
async function makeFolders(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    const errno = error instanceof Error && 'code' in error ? error.code : '';
    const isThere = await stat(path).catch(() => undefined);
    if (isThere?.isDirectory()) return;
    if (isThere) throw new CodedError('not-a-folder', `cannot create the folder ${path}: a file is there`);
    if (errno !== 'ENOENT' || dirname(path) === path) throw error;
    await makeFolders(dirname(path), mode);
    await mkdir(path, { mode }).catch((again: NodeJS.ErrnoException) => {
      if (again.code !== 'EEXIST') throw again;
    });
  }
}

/** Deletes what an earlier process left half-written in the folder. Only for a folder that nobody else writes to. */
export async function removeTemporaries(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (basename(name).endsWith(temporarySuffix)) await rm(join(folder, name), { force: true });
  }
}
