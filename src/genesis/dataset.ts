/**
 * What everything above needs of a dataset: its manifest, its tokenizer and the tokens of any shard, already checked
 * against the manifest. Where the bytes come from (a folder, an HTTP mirror, peers) is handed in.
 */
import { assert, must } from '../std/assert.ts';
import { equalBytes } from '../std/bytes.ts';
import { type HashHex, sha256 } from '../std/hash.ts';
import { accept, CodedError, type Outcome } from '../std/outcome.ts';
import type { DatasetManifest, PublishedManifest } from './manifest.ts';
import { chunkBytes, chunkCount, decodeChunk, openShard, type ShardTokens } from './shard.ts';

export interface Dataset {
  readonly manifest: DatasetManifest;
  /** Names the dataset. */
  readonly hash: HashHex;
  readonly publisher: PublishedManifest['publisher'];
  /** The bytes of tokenizer.json. */
  readonly tokenizerJson: Uint8Array;
  /**
   * The tokens of one shard, verified against its Merkle root and kept in memory within a bound. Rejects with a
   * CodedError (`shard-missing`, `shard-corrupt`, or what the source throws); never gives unverified tokens.
   */
  shard(index: number): Promise<ShardTokens>;
}

/** Where the bytes of shards come from. None of it is trusted. */
export interface ShardSource {
  /** All bytes of a shard. */
  read(index: number): Promise<Uint8Array>;
  /** What to call the shard in an error: a file, an address. */
  nameOf(index: number): string;
  /** Leaf hashes of a shard, where at hand: they let an error name the bad chunk. */
  leavesOf?(index: number): Promise<readonly Uint8Array[] | undefined>;
}

export interface DatasetOptions {
  /** Of the shards kept in memory; at least one is always kept. */
  readonly memoryBytesMax?: number;
}

/**
 * A dataset whose shards are read when first asked for. Throws CodedError `tokenizer-mismatch` when the tokenizer is
 * not the manifest's.
 */
export function openDataset(
  published: PublishedManifest,
  tokenizerJson: Uint8Array,
  source: ShardSource,
  { memoryBytesMax = 256 * 1024 * 1024 }: DatasetOptions = {},
): Dataset {
  const { manifest, hash, publisher } = published;
  if (!equalBytes(sha256(tokenizerJson), manifest.tokenizerHash)) {
    throw new CodedError('tokenizer-mismatch', 'tokenizer.json is not the one that the manifest names');
  }
  // Least recently used first: a Map keeps the order of insertion.
  const loaded = new Map<number, Promise<ShardTokens>>();
  let loadedBytes = 0;
  const forget = (index: number) => {
    if (loaded.delete(index)) loadedBytes -= manifest.shards[index]!.bytes;
  };
  return {
    manifest,
    hash,
    publisher,
    tokenizerJson,
    shard: (index) => {
      const info = must(manifest.shards[index], `no shard ${index}`);
      const known = loaded.get(index);
      forget(index);
      for (const oldest of loaded.keys()) {
        if (loadedBytes + info.bytes <= memoryBytesMax) break;
        forget(oldest);
      }
      const tokens = known ?? readShard(manifest, source, index);
      loaded.set(index, tokens);
      loadedBytes += info.bytes;
      // A failed read is not remembered: the next call tries again.
      if (!known) tokens.catch(() => loaded.get(index) === tokens && forget(index));
      return tokens;
    },
  };
}

async function readShard(
  manifest: DatasetManifest,
  source: ShardSource,
  index: number,
): Promise<ShardTokens> {
  const bytes = await source.read(index);
  let opened = openShard(manifest, index, bytes);
  if (opened.ok) return opened.value;
  if (opened.code === 'bad-proof') opened = openShard(manifest, index, bytes, await source.leavesOf?.(index));
  assert(!opened.ok, 'a shard that failed its proof fails it again');
  throw new CodedError('shard-corrupt', `${source.nameOf(index)}: ${opened.detail}`);
}

/** A dataset whose shard bytes are all in memory: tests, the simulator, and datasets just built. */
export function memoryDataset(
  published: PublishedManifest,
  tokenizerJson: Uint8Array,
  shards: readonly Uint8Array[],
): Dataset {
  return openDataset(
    published,
    tokenizerJson,
    {
      read: async (index) => must(shards[index], `no shard ${index}`),
      nameOf: (index) => `shard ${index}`,
    },
    { memoryBytesMax: Number.POSITIVE_INFINITY },
  );
}

/**
 * Hands messages that claim to be one chunk (`encodeChunk`) to `take` until it accepts one, which is then in its place;
 * rejects when nobody gives one.
 */
export type FetchChunk = (
  shard: number,
  chunk: number,
  take: (message: Uint8Array) => Outcome<null>,
) => Promise<void>;

/**
 * Shards fetched chunk by chunk from peers, each proved as it arrives: what fails its proof is never used, and whoever
 * fetches learns it from `take`, so that it may ask somebody else. Rejects with what `fetchChunk` rejects with.
 */
export function chunkedSource(
  manifest: DatasetManifest,
  fetchChunk: FetchChunk,
  { chunksInFlight = 4 }: { readonly chunksInFlight?: number } = {},
): ShardSource {
  return {
    nameOf: (index) => `shard ${index}`,
    read: async (index) => {
      const info = must(manifest.shards[index], `no shard ${index}`);
      const bytes = new Uint8Array(info.bytes);
      const count = chunkCount(info.bytes);
      const fetchInto = async (chunk: number) => {
        let isTaken = false;
        await fetchChunk(index, chunk, (message) => {
          const opened = decodeChunk(message, info, chunk);
          if (!opened.ok) return opened;
          bytes.set(opened.value, chunk * chunkBytes);
          isTaken = true;
          return accept(null);
        });
        assert(isTaken, 'a chunk that was fetched is in its place');
      };
      let next = 0;
      const worker = async () => {
        try {
          while (next < count) await fetchInto(next++);
        } catch (error) {
          next = count;
          throw error;
        }
      };
      await Promise.all(Array.from({ length: Math.min(chunksInFlight, count) }, worker));
      return bytes;
    },
  };
}
