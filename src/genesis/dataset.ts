/**
 * What everything above needs of a dataset: its manifest, its tokenizer and the tokens of any shard, already checked
 * against the manifest. Where the bytes come from (a folder, an HTTP mirror, a peer) is the implementation's affair.
 */
import { must } from '../std/assert.ts';
import { bytesOf } from '../std/bytes.ts';
import type { HashHex } from '../std/hash.ts';
import type { DatasetManifest, PublishedManifest } from './manifest.ts';

/** Token ids of one shard. Never written to. */
export type ShardTokens = Uint16Array | Uint32Array;

export interface Dataset {
  readonly manifest: DatasetManifest;
  /** Names the dataset. */
  readonly hash: HashHex;
  readonly publisher: PublishedManifest['publisher'];
  /** The bytes of tokenizer.json. */
  readonly tokenizerJson: Uint8Array;
  /**
   * The tokens of one shard, verified against its Merkle root; kept in memory as far as the implementation's bound
   * allows. Rejects with a CodedError (`shard-missing`, `shard-corrupt`) and never gives unverified tokens.
   */
  shard(index: number): Promise<ShardTokens>;
}

/** A dataset that is wholly in memory: tests, the simulator, and datasets just built. */
export function memoryDataset(
  published: PublishedManifest,
  tokenizerJson: Uint8Array,
  shards: readonly ShardTokens[],
): Dataset {
  return {
    manifest: published.manifest,
    hash: published.hash,
    publisher: published.publisher,
    tokenizerJson,
    shard: async (index) => must(shards[index], `no shard ${index}`),
  };
}

/** Reads little-endian ids from shard bytes, without a copy where the alignment allows. */
export function tokensOfBytes(bytes: Uint8Array, tokenBytes: 2 | 4): ShardTokens {
  const aligned = bytes.byteOffset % tokenBytes === 0 ? bytes : bytes.slice();
  const length = Math.floor(aligned.length / tokenBytes);
  return tokenBytes === 2
    ? new Uint16Array(aligned.buffer, aligned.byteOffset, length)
    : new Uint32Array(aligned.buffer, aligned.byteOffset, length);
}

export function bytesOfTokens(tokens: ShardTokens): Uint8Array {
  return bytesOf(tokens);
}
