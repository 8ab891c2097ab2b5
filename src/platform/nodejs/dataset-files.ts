/**
 * A dataset as a folder, or as the same files behind an http(s) address: manifest.cbor, tokenizer.json, leaves.bin
 * (chunk hashes, a convenience that is never trusted) and shards/NNNNN.bin. Nothing is used before it is verified.
 */
import { readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { type BuildOptions, type BuiltDataset, buildDataset } from '../../genesis/build.ts';
import { type Dataset, type DatasetOptions, openDataset, type ShardSource } from '../../genesis/dataset.ts';
import {
  type DatasetManifest,
  decodeManifest,
  encodeManifest,
  manifestLimits,
  type PublishedManifest,
} from '../../genesis/manifest.ts';
import { chunkCount, openShard } from '../../genesis/shard.ts';
import { tokenizerBytesMax } from '../../genesis/tokenizer.ts';
import { equalBytes } from '../../std/bytes.ts';
import { type HashHex, sha256 } from '../../std/hash.ts';
import { merkleRoot } from '../../std/merkle.ts';
import { CodedError } from '../../std/outcome.ts';
import { isUrl, readUrl } from './byte-sources.ts';
import {
  createFolder,
  fileError,
  readFileBounded,
  syncFolder,
  temporarySuffix,
  writeFileAtomic,
} from './files.ts';

export const manifestFile = 'manifest.cbor';
export const tokenizerFile = 'tokenizer.json';
const leavesFile = 'leaves.bin';
export const shardsFolder = 'shards';
const hashBytes = 32;

export function shardFile(index: number): string {
  return `${shardsFolder}/${String(index).padStart(5, '0')}.bin`;
}

function placeOf(location: string, file: string): string {
  return isUrl(location) ? `${location.replace(/\/+$/, '')}/${file}` : join(location, file);
}

function readPlace(place: string, bytesMax: number): Promise<Uint8Array> {
  return isUrl(place) ? readUrl(place, bytesMax) : readFileBounded(place, bytesMax);
}

export interface LoadOptions extends DatasetOptions {
  /** The dataset that is wanted: another one is refused with `wrong-dataset`. */
  readonly expectedHash?: HashHex;
}

/**
 * Opens a dataset folder or address. Throws CodedError `not-found`, `manifest-invalid`, `wrong-dataset` or
 * `tokenizer-mismatch`; shards are verified when they are first read (`shard-corrupt` names the file and chunk).
 */
export async function loadDataset(location: string, options: LoadOptions = {}): Promise<Dataset> {
  const published = await readManifest(location);
  if (options.expectedHash !== undefined && options.expectedHash !== published.hash) {
    throw new CodedError(
      'wrong-dataset',
      `${location} holds dataset ${published.hash}, not ${options.expectedHash}`,
    );
  }
  const tokenizerJson = await readPlace(placeOf(location, tokenizerFile), tokenizerBytesMax);
  return openDataset(published, tokenizerJson, shardSource(location, published.manifest), options);
}

export async function readManifest(location: string): Promise<PublishedManifest> {
  const place = placeOf(location, manifestFile);
  const decoded = decodeManifest(await readPlace(place, manifestLimits.bytesMax));
  if (decoded.ok) return decoded.value;
  const why = decoded.detail ? `${decoded.code} (${decoded.detail})` : decoded.code;
  throw new CodedError('manifest-invalid', `${place} is not a dataset manifest: ${why}`);
}

function shardSource(location: string, manifest: DatasetManifest): ShardSource {
  const nameOf = (index: number) => placeOf(location, shardFile(index));
  return {
    nameOf,
    read: async (index) => {
      try {
        return await readPlace(nameOf(index), manifest.shards[index]!.bytes);
      } catch (error) {
        const code = error instanceof CodedError ? error.code : '';
        if (code === 'not-found')
          throw new CodedError('shard-missing', `${nameOf(index)} is missing`, { cause: error });
        if (code !== 'too-large') throw error;
        throw new CodedError('shard-corrupt', `${nameOf(index)}: longer than the manifest says`, {
          cause: error,
        });
      }
    },
    leavesOf: async (index) => (await readLeaves(location, manifest))?.[index],
  };
}

/** Chunk hashes by shard, as far as they agree with the manifest's roots; undefined where there are none. */
async function readLeaves(
  location: string,
  manifest: DatasetManifest,
): Promise<(Uint8Array[] | undefined)[] | undefined> {
  const counts = manifest.shards.map((shard) => chunkCount(shard.bytes));
  const total = counts.reduce((sum, count) => sum + count, 0);
  let bytes: Uint8Array;
  try {
    bytes = await readPlace(placeOf(location, leavesFile), total * hashBytes);
  } catch {
    return undefined;
  }
  let offset = 0;
  return counts.map((count, index) => {
    const leaves = Array.from({ length: count }, (_, i) =>
      bytes.subarray(offset + i * hashBytes, offset + (i + 1) * hashBytes),
    );
    offset += count * hashBytes;
    return equalBytes(merkleRoot(leaves), manifest.shards[index]!.merkleRoot) ? leaves : undefined;
  });
}

export interface DatasetProblem {
  readonly file: string;
  readonly code: string;
  readonly detail: string;
}

export interface VerifyReport {
  readonly published: PublishedManifest;
  /** Bytes of shards that were read and proved. */
  readonly bytesVerified: number;
  readonly problems: readonly DatasetProblem[];
}

/** Proves every byte of a dataset, and names each file that fails. Throws only when there is no valid manifest. */
export async function verifyDataset(
  location: string,
  onShard: (done: number, total: number) => void = () => {},
): Promise<VerifyReport> {
  const published = await readManifest(location);
  const { manifest } = published;
  const problems: DatasetProblem[] = [];
  const note = (file: string, error: unknown) => {
    if (!(error instanceof CodedError)) throw error;
    problems.push({ file, code: error.code, detail: error.message });
  };
  try {
    const tokenizerJson = await readPlace(placeOf(location, tokenizerFile), tokenizerBytesMax);
    if (!equalBytes(sha256(tokenizerJson), manifest.tokenizerHash)) {
      throw new CodedError('tokenizer-mismatch', 'not the tokenizer that the manifest names');
    }
  } catch (error) {
    note(tokenizerFile, error);
  }
  const source = shardSource(location, manifest);
  const leaves = await readLeaves(location, manifest);
  let bytesVerified = 0;
  for (const { index, bytes } of manifest.shards) {
    try {
      const opened = openShard(manifest, index, await source.read(index), leaves?.[index]);
      if (!opened.ok) throw new CodedError('shard-corrupt', opened.detail);
      bytesVerified += bytes;
    } catch (error) {
      note(shardFile(index), error);
    }
    onShard(index + 1, manifest.shards.length);
  }
  return { published, bytesVerified, problems };
}

let temporaryCount = 0;

/**
 * Builds a dataset into `folder`, which appears only when it is whole. An existing folder is refused with
 * `already-exists`; with `force` it is replaced, if it is a dataset or empty.
 */
export async function buildDatasetFolder(
  folder: string,
  options: BuildOptions,
  { force = false }: { readonly force?: boolean } = {},
): Promise<BuiltDataset> {
  const target = resolve(folder);
  const existing = await checkTarget(target, force);
  temporaryCount += 1;
  const temporary = `${target}.${process.pid}.${temporaryCount}${temporarySuffix}`;
  try {
    await rm(temporary, { recursive: true, force: true });
    await createFolder(join(temporary, shardsFolder));
    const leaves: Uint8Array[] = [];
    const built = await buildDataset(options, async (index, bytes, shardLeaves) => {
      leaves.push(...shardLeaves);
      await writeFileAtomic(join(temporary, shardFile(index)), bytes);
    });
    await writeFileAtomic(join(temporary, leavesFile), leaves);
    await writeFileAtomic(join(temporary, tokenizerFile), built.tokenizerJson);
    await writeFileAtomic(join(temporary, manifestFile), encodeManifest(built.published));
    if (existing) await rename(target, `${temporary}.old`);
    await rename(temporary, target);
    await syncFolder(dirname(target));
    return built;
  } catch (error) {
    throw fileError(error, 'write', folder);
  } finally {
    await rm(`${temporary}.old`, { recursive: true, force: true });
    await rm(temporary, { recursive: true, force: true });
  }
}

/** Whether the target exists and may be replaced. */
async function checkTarget(target: string, force: boolean): Promise<boolean> {
  try {
    await createFolder(dirname(target));
    if (!(await stat(target).catch(() => undefined))) return false;
    if (!force)
      throw new CodedError(
        'already-exists',
        `${target} already exists: choose another folder, or replace it with --force`,
      );
    const names = await readdir(target);
    if (names.length > 0 && !names.includes(manifestFile)) {
      throw new CodedError('not-a-dataset', `${target} is not a dataset folder: it is not replaced`);
    }
    return true;
  } catch (error) {
    throw fileError(error, 'write', target);
  }
}
