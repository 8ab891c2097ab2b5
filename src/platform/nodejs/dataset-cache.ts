/**
 * What a node has fetched of a dataset, in a folder of its own: the files of a dataset folder, shards as far as they
 * have come. Every file is whole or not there; whether it is what the manifest says is checked by whoever reads it.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeManifest } from '../../genesis/manifest.ts';
import { tokenizerBytesMax } from '../../genesis/tokenizer.ts';
import type { DatasetCache } from '../../peer/dataset-exchange.ts';
import { CodedError } from '../../std/outcome.ts';
import { manifestFile, readManifest, shardFile, shardsFolder, tokenizerFile } from './dataset-files.ts';
import { createFolder, readFileBounded, removeTemporaries, writeFileAtomic } from './files.ts';

/** Only for a folder that nobody else writes to. Creates nothing before something is kept. */
export async function openDatasetCache(folder: string): Promise<DatasetCache> {
  const held = new Set<number>();
  for (const name of await namesIn(join(folder, shardsFolder))) {
    const index = Number.parseInt(name, 10);
    if (join(shardsFolder, name) === join(shardFile(index))) held.add(index);
  }
  return {
    load: () =>
      orUndefined(async () => {
        const published = await readManifest(folder);
        return {
          published,
          tokenizerJson: await readFileBounded(join(folder, tokenizerFile), tokenizerBytesMax),
        };
      }),
    // The manifest comes last: where it is, the tokenizer is.
    save: async (published, tokenizerJson) => {
      await createFolder(folder);
      await writeFileAtomic(join(folder, tokenizerFile), tokenizerJson);
      await writeFileAtomic(join(folder, manifestFile), encodeManifest(published));
    },
    holds: (shard) => held.has(shard),
    read: async (shard, bytesMax) => {
      const bytes = await orUndefined(() => readFileBounded(join(folder, shardFile(shard)), bytesMax));
      if (!bytes) held.delete(shard);
      return bytes;
    },
    write: async (shard, bytes) => {
      held.delete(shard);
      await createFolder(join(folder, shardsFolder));
      await writeFileAtomic(join(folder, shardFile(shard)), bytes);
      held.add(shard);
    },
  };
}

/** Names in a folder of ours, rid of what an earlier process left half-written; none where there is no folder. */
async function namesIn(folder: string): Promise<string[]> {
  try {
    await removeTemporaries(folder);
    return await readdir(folder);
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return [];
    throw error;
  }
}

/** A cache that cannot be read is as good as none: its files are fetched again. */
async function orUndefined<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof CodedError) return undefined;
    throw error;
  }
}
