/**
 * When a node holding the whole model is written to disk: copied in memory between two steps, then written behind the
 * training, never twice at once, and never more in a day than the disk should bear. Knows no file and no format.
 */
import { type ReplicaSnapshot, type StageReplica, snapshotTensors } from '../diloco/replica.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import type { EventSink } from './events.ts';

/** Bytes written since the day began, so that a node that restarts often does not forget what it wrote. */
export interface DailyWrites {
  readonly startMs: number;
  readonly bytes: number;
}

export interface StoredSnapshot {
  readonly replica: ReplicaSnapshot;
  /** Before this snapshot was written. */
  readonly writes: DailyWrites;
}

export interface DamagedFile {
  readonly file: string;
  /** One line for people. */
  readonly reason: string;
}

export interface LoadedSnapshots {
  /** The newest that is whole. */
  readonly snapshot: StoredSnapshot | undefined;
  /** That it took to write it; 0 without one. */
  readonly bytes: number;
  /** What is damaged of newer ones. */
  readonly damaged: readonly DamagedFile[];
}

/** Where snapshots are kept. One call at a time. */
export interface SnapshotFiles {
  /**
   * Durable when it resolves; gives the bytes written. Throws CodedError (`disk-full`, …) and leaves the snapshots that
   * were there as they were.
   */
  write(snapshot: StoredSnapshot): Promise<number>;
  load(): Promise<LoadedSnapshots>;
}

export interface CheckpointOptions {
  readonly files: SnapshotFiles;
  readonly replica: StageReplica;
  readonly clock: Clock;
  readonly events: EventSink;
  /** Between two snapshots; longer where the daily bytes would not last the day. */
  readonly intervalMs?: number;
  readonly bytesPerDayMax?: number;
}

export interface Restored {
  readonly round: number;
  readonly step: number;
  /** Files, each with what is wrong with it. */
  readonly damaged: readonly string[];
}

export interface CheckpointKeeper {
  /** Between steps: takes a snapshot when one is due. Resolves when training may go on; the write goes on behind it. */
  maybeSnapshot(): Promise<void>;
  /** Takes one now, whatever was written today; resolves when it is durable (true) or could not be written (false). */
  snapshotNow(): Promise<boolean>;
  /**
   * Before training begins: puts the replica where the newest whole snapshot stands; undefined when there is none. What
   * is damaged of newer ones is a warning each. Throws CodedError `snapshot-mismatch` when it is of another model
   * or another stage.
   */
  restore(): Promise<Restored | undefined>;
  /** Resolves when no write is under way. */
  flush(): Promise<void>;
}

export const defaultIntervalMs = 120_000;
/** A 1 TB consumer SSD is rated for about 600 TB written: at this rate it lasts eight years of unbroken training. */
export const defaultBytesPerDayMax = 200e9;
const dayMs = 86_400_000;

interface Keeping {
  readonly options: CheckpointOptions;
  readonly intervalMs: number;
  readonly bytesPerDayMax: number;
  /** When the last snapshot was taken, and the bytes that it wrote. */
  lastMs: number;
  lastBytes: number;
  /** Of a whole snapshot; 0 until it is known. */
  expectedBytes: number;
  writes: DailyWrites;
  warnedOfCap: boolean;
  /** Settles, and never rejects, when the write under way has ended. */
  writing: Promise<void> | undefined;
}

export function createCheckpointKeeper(options: CheckpointOptions): CheckpointKeeper {
  const startMs = options.clock.nowMs();
  const keeping: Keeping = {
    options,
    intervalMs: options.intervalMs ?? defaultIntervalMs,
    bytesPerDayMax: options.bytesPerDayMax ?? defaultBytesPerDayMax,
    lastMs: startMs,
    lastBytes: 0,
    expectedBytes: 0,
    writes: { startMs, bytes: 0 },
    warnedOfCap: false,
    writing: undefined,
  };
  const flush = async () => {
    while (keeping.writing) await keeping.writing;
  };
  return {
    maybeSnapshot: () => maybeSnapshot(keeping),
    async snapshotNow() {
      await flush();
      beginDayIfOver(keeping);
      return take(keeping).written;
    },
    restore: () => restore(keeping),
    flush,
  };
}

async function maybeSnapshot(keeping: Keeping): Promise<void> {
  const { replica, clock } = keeping.options;
  keeping.expectedBytes ||= await wholeBytes(replica);
  beginDayIfOver(keeping);
  const paceMs = (dayMs * keeping.lastBytes) / keeping.bytesPerDayMax;
  const sinceMs = clock.nowMs() - keeping.lastMs;
  const isDue = sinceMs < 0 || sinceMs >= Math.max(keeping.intervalMs, paceMs);
  if (keeping.writing || !isDue) return;
  if (capAllows(keeping, keeping.expectedBytes)) await take(keeping).copied;
}

function beginDayIfOver(keeping: Keeping): void {
  const sinceMs = keeping.options.clock.nowMs() - keeping.writes.startMs;
  // A clock set back must not make a day last longer.
  if (sinceMs < dayMs && sinceMs >= 0) return;
  keeping.writes = { startMs: keeping.options.clock.nowMs(), bytes: 0 };
  keeping.warnedOfCap = false;
}

function capAllows(keeping: Keeping, bytes: number): boolean {
  const { writes, bytesPerDayMax, options } = keeping;
  if (writes.bytes + bytes <= bytesPerDayMax) return true;
  if (!keeping.warnedOfCap) {
    keeping.warnedOfCap = true;
    const hours = Math.ceil((writes.startMs + dayMs - options.clock.nowMs()) / 3_600_000);
    const detail = `${bytesPerDayMax} bytes a day for snapshots are used up; the next one in at most ${hours} h`;
    options.events({ type: 'warning', code: 'checkpoint-cap', detail });
  }
  return false;
}

/** `copied` resolves when training may go on, `written` when the files are there; both reject if there is no copy. */
function take(keeping: Keeping) {
  const { replica, clock } = keeping.options;
  const { writes } = keeping;
  const startMs = clock.nowMs();
  keeping.lastMs = startMs;
  const copied = replica.snapshot().then((taken) => ({
    stored: { replica: taken, writes },
    pauseMs: clock.nowMs() - startMs,
  }));
  const written = copied.then(({ stored, pauseMs }) => write(keeping, stored, pauseMs));
  const settled = written.then(
    () => undefined,
    () => undefined,
  );
  keeping.writing = settled;
  settled.then(() => {
    if (keeping.writing === settled) keeping.writing = undefined;
  });
  return { copied, written };
}

/** Whether the files are there; where not, why is a warning. */
async function write(keeping: Keeping, stored: StoredSnapshot, pauseMs: number): Promise<boolean> {
  const { files, events } = keeping.options;
  try {
    const bytes = await files.write(stored);
    keeping.lastBytes = bytes;
    keeping.writes = { ...keeping.writes, bytes: keeping.writes.bytes + bytes };
    const { round, step } = stored.replica.position;
    events({ type: 'checkpoint', round, step, bytes, pauseMs });
    return true;
  } catch (error) {
    const code = error instanceof CodedError ? error.code : 'checkpoint-failed';
    const reason = error instanceof Error ? error.message : String(error);
    events({ type: 'warning', code, detail: `no snapshot: ${reason}` });
    return false;
  }
}

async function restore(keeping: Keeping): Promise<Restored | undefined> {
  const { files, replica, events } = keeping.options;
  const { snapshot, bytes, damaged } = await files.load();
  const reports = damaged.map(({ file, reason }) => `${file}: ${reason}`);
  for (const detail of reports) events({ type: 'warning', code: 'snapshot-damaged', detail });
  if (!snapshot) return undefined;
  const restored = await replica.restore(snapshot.replica);
  if (!restored.ok) {
    const detail = `the snapshots in this node's folder belong to another model or stage (${restored.detail})`;
    throw new CodedError(restored.code, `${detail}; give this network a folder of its own`);
  }
  keeping.lastBytes = bytes;
  keeping.writes = { ...snapshot.writes, bytes: snapshot.writes.bytes + bytes };
  beginDayIfOver(keeping);
  const { round, step } = restored.value;
  return { round, step, damaged: reports };
}

/** Of a snapshot that writes all its tensors. */
async function wholeBytes(replica: StageReplica): Promise<number> {
  const { flatLength } = await replica.info();
  return snapshotTensors.length * Float32Array.BYTES_PER_ELEMENT * flatLength;
}
