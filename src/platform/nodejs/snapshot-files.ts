/**
 * Snapshots in a folder: each is two safetensors files (local part, round part) and an index that names them with their
 * hashes and comes last, so a snapshot without its index never was. Two are kept, and they share no file, so that one
 * damaged file costs one snapshot. Knows nothing of when snapshots are taken.
 */
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { type Position, type SnapshotTensor, snapshotTensors } from '../../diloco/replica.ts';
import { parseSafetensorsHeader, safetensorsHead, safetensorsHeaderLength } from '../../model/safetensors.ts';
import type { DamagedFile, LoadedSnapshots, SnapshotFiles, StoredSnapshot } from '../../peer/checkpoint.ts';
import { bytesOf } from '../../std/bytes.ts';
import { createFolder, fileError, readFileBounded, removeTemporaries, writeFileAtomic } from './files.ts';
import {
  encodeIndex,
  type FileEntry,
  indexBytesMax,
  parseIndex,
  type SnapshotIndex,
} from './snapshot-index.ts';

/** Hashed, read and written at once: a few milliseconds of the I/O thread. */
const sliceBytes = 1024 * 1024;
const headerBytesMax = 64 * 1024;
const indexName = /^snapshot-(\d{12})\.json$/;
const anyName = /^(?:snapshot|local|round)-(\d{12})\.(?:json|safetensors)$/;

const partTensors = {
  /** Of every snapshot. */
  local: ['weights', 'firstMoments', 'secondMoments', 'errorFeedback'],
  /** The agreed state, the same all through a round. */
  round: ['base', 'velocity'],
} as const satisfies Record<string, readonly SnapshotTensor[]>;
type Part = keyof typeof partTensors;

export interface SnapshotFilesOptions {
  /** How files are opened for writing: a test hands in a disk that is full. */
  readonly openFile?: typeof open;
}

interface Folder {
  readonly path: string;
  readonly options: SnapshotFilesOptions;
  /** Of the newest snapshot. */
  sequence: number;
  /** Newest first. */
  kept: SnapshotIndex[];
  /** Files that this process wrote, or whose hash it has checked. */
  readonly sound: Set<string>;
}

/** Opens the folder, creating it, and clears what a crash left half-written. One process at a time. */
export async function openSnapshotFiles(
  path: string,
  options: SnapshotFilesOptions = {},
): Promise<SnapshotFiles> {
  await createFolder(path, 0o700);
  await removeTemporaries(path);
  const sequences = (await list(path, anyName)).map((name) => Number(anyName.exec(name)![1]));
  const folder: Folder = {
    path,
    options,
    sequence: Math.max(0, ...sequences),
    kept: [],
    sound: new Set(),
  };
  return { write: (snapshot) => writeSnapshot(folder, snapshot), load: () => loadNewest(folder) };
}

async function writeSnapshot(folder: Folder, snapshot: StoredSnapshot): Promise<number> {
  folder.sequence += 1;
  const number = String(folder.sequence).padStart(12, '0');
  const names = {
    index: `snapshot-${number}.json`,
    local: `local-${number}.safetensors`,
    round: `round-${number}.safetensors`,
  };
  try {
    const reused = reusableRound(folder, snapshot);
    const round = reused ?? (await writePart(folder, 'round', names.round, snapshot));
    const local = await writePart(folder, 'local', names.local, snapshot);
    const bytes = local.bytes + (reused ? 0 : round.bytes);
    const { position, contributed } = snapshot.replica;
    const { writes } = snapshot;
    const index = { name: names.index, position, contributed, writes, bytes, local, round };
    await write(folder, names.index, encodeIndex(index));
    folder.kept = [index, ...folder.kept].slice(0, 2);
  } catch (error) {
    await removeAll(folder.path, [names.index, names.local, names.round]);
    throw error;
  }
  await removeOthers(folder).catch(() => undefined);
  return folder.kept[0]!.bytes;
}

/** The round part of the snapshot that is about to be dropped, when it is of the same round. */
function reusableRound({ kept, sound }: Folder, snapshot: StoredSnapshot): FileEntry | undefined {
  const { position } = snapshot.replica;
  const oldest = kept[1];
  const same = oldest?.position.round === position.round && oldest.position.stateHash === position.stateHash;
  return oldest && same && sound.has(oldest.round.name) ? oldest.round : undefined;
}

async function writePart(
  folder: Folder,
  part: Part,
  name: string,
  { replica }: StoredSnapshot,
): Promise<FileEntry> {
  const sources = partTensors[part].map((tensor) => {
    const data = replica.tensors[tensor];
    return { name: tensor, shape: [data.length], data };
  });
  const { round, step, stateHash } = replica.position;
  const about = { round: String(round), step: String(step), 'state-hash': stateHash };
  const hash = createHash('sha256');
  let bytes = 0;
  function* pieces() {
    for (const whole of [safetensorsHead(sources, about), ...sources.map(({ data }) => bytesOf(data))]) {
      for (let start = 0; start < whole.length; start += sliceBytes) {
        const piece = whole.subarray(start, start + sliceBytes);
        hash.update(piece);
        bytes += piece.length;
        yield piece;
      }
    }
  }
  await write(folder, name, pieces());
  folder.sound.add(name);
  return { name, bytes, sha256: hash.digest('hex') };
}

function write(
  { path, options }: Folder,
  name: string,
  content: Parameters<typeof writeFileAtomic>[1],
): Promise<void> {
  return writeFileAtomic(join(path, name), content, { mode: 0o600, ...options });
}

/** Also of snapshots that were found damaged. What cannot be deleted now is tried again after the next snapshot. */
async function removeOthers({ path, kept, sound }: Folder): Promise<void> {
  const wanted = new Set(kept.flatMap(({ name, local, round }) => [name, local.name, round.name]));
  const others = (await list(path, anyName)).filter((name) => !wanted.has(name));
  // An index goes before the files that it names.
  others.sort((a, b) => Number(indexName.test(b)) - Number(indexName.test(a)));
  await removeAll(path, others);
  for (const name of others) sound.delete(name);
}

async function loadNewest(folder: Folder): Promise<LoadedSnapshots> {
  const damaged: DamagedFile[] = [];
  const names = await indexNames(folder.path);
  folder.kept = [];
  for (const [position, name] of names.entries()) {
    const loaded = await loadSnapshot(folder, name, damaged);
    if (!loaded) continue;
    const { index, snapshot } = loaded;
    const previous = names[position + 1];
    const older = previous && (await readIndex(folder.path, previous).catch(() => undefined));
    folder.kept = older ? [index, older] : [index];
    return { snapshot, bytes: index.bytes, damaged };
  }
  return { snapshot: undefined, bytes: 0, damaged };
}

/** Undefined when one of its files is not whole; which, and why, goes to `damaged`. */
async function loadSnapshot({ path, sound }: Folder, name: string, damaged: DamagedFile[]) {
  const report = (file: string) => (error: unknown) => {
    damaged.push({ file, reason: error instanceof Error ? error.message : String(error) });
  };
  const index = await readIndex(path, name).catch(report(name));
  if (!index) return undefined;
  const { position, contributed, writes } = index;
  const local = await readPart(path, index.local, 'local').catch(report(index.local.name));
  const round = await readPart(path, index.round, 'round').catch(report(index.round.name));
  if (!local || !round) return undefined;
  for (const file of [index.local.name, index.round.name]) sound.add(file);
  const tensors = { ...local, ...round } as Record<SnapshotTensor, Float32Array>;
  return { index, snapshot: { replica: { position, contributed, tensors }, writes } };
}

export interface StoredState {
  readonly position: Position;
  /** w_r and v, flat. */
  readonly base: Float32Array;
  readonly velocity: Float32Array;
}

/**
 * The agreed state of the newest snapshot that is whole; undefined without one. It changes nothing, so that the node
 * whose folder it is may go on meanwhile: what it replaces under our hands is passed over.
 */
export async function readNewestState(folder: string): Promise<StoredState | undefined> {
  for (const name of await indexNames(folder)) {
    const index = await readIndex(folder, name).catch(() => undefined);
    const tensors = index && (await readPart(folder, index.round, 'round').catch(() => undefined));
    const { base, velocity } = tensors ?? {};
    if (index && base && velocity) return { position: index.position, base, velocity };
  }
  return undefined;
}

async function list(folder: string, pattern: RegExp): Promise<string[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    throw fileError(error, 'list', folder);
  });
  return names.filter((name) => pattern.test(name));
}

/** The newest snapshot's first. */
async function indexNames(folder: string): Promise<string[]> {
  return (await list(folder, indexName)).sort().reverse();
}

async function removeAll(folder: string, names: readonly string[]): Promise<void> {
  for (const name of names) await rm(join(folder, name), { force: true }).catch(() => undefined);
}

async function readIndex(folder: string, name: string): Promise<SnapshotIndex> {
  return parseIndex(name, await readFileBounded(join(folder, name), indexBytesMax));
}

type Tensors = Partial<Record<SnapshotTensor, Float32Array>>;

/** Reads and checks one file of a snapshot; throws an error with one line saying what is wrong. */
async function readPart(folder: string, { name, bytes, sha256 }: FileEntry, part: Part): Promise<Tensors> {
  const path = join(folder, name);
  const file = await open(path, 'r').catch((error: unknown) => {
    throw fileError(error, 'read', path);
  });
  try {
    const { size } = await file.stat();
    if (size !== bytes) throw new Error(`${size} bytes, not ${bytes}`);
    const hash = createHash('sha256');
    const tensors = await readTensors(file, size, hash);
    if (hash.digest('hex') !== sha256) throw new Error('its hash is not that of the index');
    const missing = partTensors[part].find((tensor) => !tensors[tensor]);
    if (missing) throw new Error(`without ${missing}`);
    return tensors;
  } finally {
    await file.close();
  }
}

async function readTensors(file: FileHandle, size: number, hash: Hash): Promise<Tensors> {
  const prefix = await readInto(file, new Uint8Array(8), hash);
  const length = safetensorsHeaderLength(prefix, size);
  if (!length.ok) throw new Error(length.detail);
  if (length.value > headerBytesMax) throw new Error(`header of ${length.value} bytes`);
  const header = parseSafetensorsHeader(await readInto(file, new Uint8Array(length.value), hash), size);
  if (!header.ok) throw new Error(header.detail);
  const tensors: Tensors = {};
  for (const { name, dtype, start, end } of header.value.entries) {
    const known = snapshotTensors.find((tensor) => tensor === name);
    if (!known || dtype !== 'F32') throw new Error(`an unexpected tensor, ${name.slice(0, 40)} (${dtype})`);
    const tensor = new Float32Array((end - start) / 4);
    await readInto(file, bytesOf(tensor), hash);
    tensors[known] = tensor;
  }
  return tensors;
}

/** Fills `target` from where the file stands, a slice at a time. */
async function readInto(file: FileHandle, target: Uint8Array, hash: Hash): Promise<Uint8Array> {
  for (let offset = 0; offset < target.length; ) {
    const length = Math.min(sliceBytes, target.length - offset);
    const { bytesRead } = await file.read(target, offset, length, null);
    if (bytesRead === 0) throw new Error('it ends too early');
    hash.update(target.subarray(offset, offset + bytesRead));
    offset += bytesRead;
  }
  return target;
}
