/**
 * Rows of a stage's recent rounds: in memory while there is room, the oldest on disk, in one file for each round, which goes
 * with its round. What is where in a file only memory knows, so a store that is opened finds nothing and clears what another
 * left behind. A disk that is full, too slow, or has been written enough for a day costs the round, and is told once for it.
 */
import { type FileHandle, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { RowStore } from '../../pipeline/row-store.ts';
import type { Clock } from '../../std/clock.ts';
import { type HashHex, sha256Hex } from '../../std/hash.ts';
import { CodedError } from '../../std/outcome.ts';
import { createFolder, fileError } from './files.ts';

export interface RowFilesOptions {
  readonly clock: Clock;
  /** Of one round, in memory and on disk. */
  readonly bytesMax?: number;
  /** Of all rounds in memory; what goes beyond it is written. */
  readonly memoryMax?: number;
  /** Of all rounds, on their way to the disk beside that. */
  readonly pendingMax?: number;
  /** Written in 24 hours: half of what a consumer's disk bears for years (docs/checkpoints.md). */
  readonly dailyMax?: number;
  /** Why a round is incomplete. */
  readonly onIncomplete: (round: number, error: CodedError) => void;
  /** How files are opened for writing: a test hands in a disk that is full. */
  readonly openFile?: typeof open;
}

const bytesMaxDefault = 32 * 2 ** 30;
const memoryMaxDefault = 256 * 2 ** 20;
const pendingMaxDefault = 256 * 2 ** 20;
const dailyMaxDefault = 100e9;
const dayMs = 86_400_000;
/** Written at once. */
const writeBytes = 16 * 2 ** 20;
const anyName = /^rows-\d+\.bin$/;

interface Place {
  readonly offset: number;
  readonly length: number;
}

interface RoundFile {
  readonly round: number;
  readonly path: string;
  readonly places: Map<HashHex, Place>;
  /** Not written yet. */
  readonly pending: Map<HashHex, Uint8Array>;
  pendingBytes: number;
  /** On disk. */
  size: number;
  file: FileHandle | undefined;
  /** Ends when no more has to be written. */
  writing: Promise<void> | undefined;
  /** The last thing that was asked of the file. */
  tail: Promise<unknown>;
  isIncomplete: boolean;
}

/** Opens the folder, creating it. One process at a time. */
export async function openRowFiles(path: string, options: RowFilesOptions): Promise<RowStore> {
  await createFolder(path, 0o700);
  try {
    for (const name of await readdir(path)) if (anyName.test(name)) await rm(join(path, name));
  } catch (error) {
    throw fileError(error, 'clear', path);
  }
  const { clock, bytesMax = bytesMaxDefault, memoryMax = memoryMaxDefault } = options;
  const { pendingMax = pendingMaxDefault, dailyMax = dailyMaxDefault } = options;
  let day = { startMs: clock.nowMs(), bytes: 0 };
  const rounds = new Map<number, RoundFile>();
  const removals = new Set<Promise<void>>();
  let files = 0;

  const fileOf = (round: number): RoundFile => {
    const known = rounds.get(round);
    if (known) return known;
    const made: RoundFile = {
      round,
      path: join(path, `rows-${files++}.bin`),
      places: new Map(),
      pending: new Map(),
      pendingBytes: 0,
      size: 0,
      file: undefined,
      writing: undefined,
      tail: Promise.resolve(),
      isIncomplete: false,
    };
    rounds.set(round, made);
    return made;
  };
  const remove = (of: RoundFile) => {
    of.pending.clear();
    of.pendingBytes = 0;
    of.places.clear();
    const removal = of.tail
      .catch(() => {})
      .then(async () => {
        await of.writing;
        await of.file?.close();
        await rm(of.path, { force: true });
      })
      // The next start clears what cannot be removed now.
      .catch(() => {})
      .finally(() => removals.delete(removal));
    removals.add(removal);
  };
  const fail = (of: RoundFile, error: CodedError) => {
    if (of.isIncomplete) return;
    of.isIncomplete = true;
    remove(of);
    options.onIncomplete(of.round, error);
  };
  const inMemory = () => [...rounds.values()].reduce((sum, { pendingBytes }) => sum + pendingBytes, 0);
  const isTooMuch = () => inMemory() > memoryMax;
  const write = async (of: RoundFile) => {
    try {
      of.file ??= await (options.openFile ?? open)(of.path, 'wx+', 0o600);
      while (of.pending.size > 0 && isTooMuch()) {
        if (clock.nowMs() - day.startMs > dayMs) day = { startMs: clock.nowMs(), bytes: 0 };
        if (day.bytes >= dailyMax)
          throw new CodedError('disk-cap', `${dailyMax} bytes of rows were written in a day`);
        day.bytes += await writeSome(of, of.file);
      }
    } catch (error) {
      fail(of, fileError(error, 'write', of.path));
    } finally {
      of.writing = undefined;
    }
  };

  const spill = () => {
    const oldest = [...rounds.values()].find(({ pending }) => pending.size > 0);
    if (oldest && !oldest.writing && isTooMuch()) oldest.writing = write(oldest).then(spill);
  };

  return {
    put: (round, hash, bytes) => {
      const of = fileOf(round);
      if (of.isIncomplete || of.places.has(hash) || of.pending.has(hash)) return;
      const kept = of.size + of.pendingBytes + bytes.length;
      if (kept > bytesMax)
        return fail(of, new CodedError('too-many-rows', `more than ${bytesMax} bytes of rows in one round`));
      if (inMemory() + bytes.length > memoryMax + pendingMax)
        return fail(of, new CodedError('disk-slow', `${inMemory()} bytes of rows wait to be written`));
      of.pending.set(hash, bytes);
      of.pendingBytes += bytes.length;
      spill();
    },
    get: async (hash) => {
      for (const of of rounds.values()) {
        const bytes = of.pending.get(hash) ?? (await readRows(of, hash));
        if (bytes && sha256Hex(bytes) === hash) return bytes;
      }
      return undefined;
    },
    isComplete: async (round) => {
      const of = rounds.get(round);
      await of?.writing;
      return !of?.isIncomplete;
    },
    drop: (round) => {
      const of = rounds.get(round);
      rounds.delete(round);
      if (of && !of.isIncomplete) remove(of);
    },
    close: async () => {
      for (const of of rounds.values()) if (!of.isIncomplete) remove(of);
      rounds.clear();
      await Promise.all(removals);
    },
  };
}

/** Puts the next pieces that wait at the end of the file. Gives their bytes. */
async function writeSome(of: RoundFile, file: FileHandle): Promise<number> {
  const taken: [HashHex, Uint8Array][] = [];
  let length = 0;
  for (const one of of.pending) {
    if (length > 0 && length + one[1].length > writeBytes) break;
    taken.push(one);
    length += one[1].length;
  }
  const whole = taken.length === 1 ? taken[0]![1] : Buffer.concat(taken.map(([, bytes]) => bytes));
  for (let offset = 0; offset < whole.length; ) {
    const { bytesWritten } = await file.write(whole, offset, whole.length - offset, of.size + offset);
    offset += bytesWritten;
  }
  for (const [hash, bytes] of taken) {
    if (of.pending.delete(hash)) {
      of.places.set(hash, { offset: of.size, length: bytes.length });
      of.pendingBytes -= bytes.length;
    }
    of.size += bytes.length;
  }
  return length;
}

async function readRows(of: RoundFile, hash: HashHex): Promise<Uint8Array | undefined> {
  const place = of.places.get(hash);
  const { file } = of;
  if (!place || !file) return undefined;
  const reading = (async () => {
    const bytes = new Uint8Array(place.length);
    for (let offset = 0; offset < place.length; ) {
      const { bytesRead } = await file.read(bytes, offset, place.length - offset, place.offset + offset);
      if (bytesRead === 0) return undefined;
      offset += bytesRead;
    }
    return bytes;
  })().catch(() => undefined);
  of.tail = Promise.all([of.tail, reading]);
  return reading;
}
