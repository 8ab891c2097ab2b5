/**
 * The loss of every inner step, one JSON line each, only ever appended: after a crash the steps that are made again can
 * be held against what they gave the first time. A torn last line is what a crash leaves, and is cut off.
 */
import { type FileHandle, open, rename } from 'node:fs/promises';
import { setImmediate as yieldToLoop } from 'node:timers/promises';
import { z } from 'zod';
import { fileError } from './files.ts';

export interface LossEntry {
  readonly round: number;
  /** 1-based within the round. */
  readonly step: number;
  /** In nats per token. */
  readonly loss: number;
}

export interface LossLog {
  /** Of the last entry that was there when it was opened; undefined for none. */
  readonly newestRound: number | undefined;
  /** In the file soon, in the order of the calls. What cannot be written is lost, and `flush` says so. */
  append(entry: LossEntry): void;
  /** Resolves when everything appended so far is in the file; throws CodedError (`disk-full`, …) once for each failure. */
  flush(): Promise<void>;
  close(): Promise<void>;
}

export interface LossLogOptions {
  /** A log that has grown beyond this is set aside as `<path>.old` when it is opened. */
  readonly bytesMax?: number;
}

const entrySchema = z.strictObject({
  round: z.number().int().min(0),
  step: z.number().int().min(0),
  /** JSON has no NaN: a loss that is not a number is written as null. */
  loss: z
    .number()
    .nullable()
    .transform((loss) => loss ?? Number.NaN),
});

const newline = 0x0a;
const sliceBytes = 64 * 1024;
const defaultBytesMax = 256 * 1024 * 1024;

/** Opens the log for appending, creating it. */
export async function openLossLog(path: string, options: LossLogOptions = {}): Promise<LossLog> {
  const file = await openForAppending(path, options.bytesMax ?? defaultBytesMax).catch((error: unknown) => {
    throw fileError(error, 'open', path);
  });
  const newestRound = await newestRoundOf(file);
  let pending = '';
  let failure: unknown;
  let writing: Promise<void> | undefined;
  /** Lines that arrive while others are being written go together in the next write. */
  const writePending = async () => {
    while (pending !== '') {
      const lines = pending;
      pending = '';
      await file.appendFile(lines);
    }
  };
  const settle = async () => {
    await writing;
    const error = failure;
    failure = undefined;
    if (error !== undefined) throw fileError(error, 'write', path);
  };
  return {
    newestRound,
    append({ round, step, loss }) {
      pending += `${JSON.stringify({ round, step, loss })}\n`;
      writing ??= writePending()
        .catch((error: unknown) => {
          failure = error;
          pending = '';
        })
        .finally(() => {
          writing = undefined;
        });
    },
    flush: settle,
    async close() {
      try {
        await settle();
      } finally {
        await file.close();
      }
    },
  };
}

/** An entry is much shorter. */
const lineBytesMax = 512;

async function newestRoundOf(file: FileHandle): Promise<number | undefined> {
  const { size } = await file.stat();
  const tail = new Uint8Array(Math.min(size, lineBytesMax));
  await file.read(tail, 0, tail.length, size - tail.length);
  const line = new TextDecoder().decode(tail).trimEnd().split('\n').at(-1) ?? '';
  try {
    return entrySchema.parse(JSON.parse(line)).round;
  } catch {
    return undefined;
  }
}

async function openForAppending(path: string, bytesMax: number): Promise<FileHandle> {
  let file = await open(path, 'a+', 0o600);
  try {
    const { size } = await file.stat();
    if (size > bytesMax) {
      await file.close();
      await rename(path, `${path}.old`);
      file = await open(path, 'a+', 0o600);
    } else {
      const whole = await wholeLines(file, size);
      if (whole < size) await file.truncate(whole);
    }
    return file;
  } catch (error) {
    await file.close().catch(() => undefined);
    throw error;
  }
}

/** Bytes up to and with the last newline. */
async function wholeLines(file: FileHandle, size: number): Promise<number> {
  const slice = new Uint8Array(sliceBytes);
  for (let end = size; end > 0; ) {
    const start = Math.max(0, end - sliceBytes);
    const { bytesRead } = await file.read(slice, 0, end - start, start);
    const at = slice.subarray(0, bytesRead).lastIndexOf(newline);
    if (at >= 0) return start + at + 1;
    end = start;
  }
  return 0;
}

/**
 * The entries of a log, oldest first; a step made twice is there twice. Lines that are no entry (the torn last one, or
 * damage) are left out and counted.
 */
export async function readLossLog(
  path: string,
): Promise<{ readonly entries: readonly LossEntry[]; readonly unreadable: number }> {
  const entries: LossEntry[] = [];
  let unreadable = 0;
  const take = (line: string) => {
    if (line === '') return;
    const parsed = entrySchema.safeParse(parseJson(line));
    if (parsed.success) entries.push(parsed.data);
    else unreadable += 1;
  };
  try {
    const file = await open(path, 'r');
    try {
      for await (const lines of linesOf(file)) {
        lines.forEach(take);
        await yieldToLoop();
      }
    } finally {
      await file.close();
    }
  } catch (error) {
    throw fileError(error, 'read', path);
  }
  return { entries, unreadable };
}

async function* linesOf(file: FileHandle): AsyncGenerator<string[]> {
  const slice = new Uint8Array(sliceBytes);
  // Entries are ASCII; any other byte is damage, and must not swallow the newline that follows it.
  const decoder = new TextDecoder('latin1');
  let rest = '';
  for (;;) {
    const { bytesRead } = await file.read(slice, 0, sliceBytes, null);
    if (bytesRead === 0) break;
    const lines = (rest + decoder.decode(slice.subarray(0, bytesRead))).split('\n');
    rest = lines.pop() ?? '';
    yield lines;
  }
  yield [rest];
}

function parseJson(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}
