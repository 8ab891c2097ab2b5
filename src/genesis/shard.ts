/**
 * Shards as bytes: little-endian token ids under a Merkle tree of 64 KiB leaves, so that any chunk is verified alone,
 * whoever sent it. It does not know where the bytes come from.
 */
import { must } from '../std/assert.ts';
import { bytesOf, equalBytes } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { merkleLeaf, merkleProof, merkleRoot, verifyMerkleProof } from '../std/merkle.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { DatasetManifest, ShardInfo } from './manifest.ts';

/** Token ids of one shard. Never written to. */
export type ShardTokens = Uint16Array | Uint32Array;

/** Of a Merkle leaf; only a shard's last chunk is shorter. */
export const chunkBytes = 64 * 1024;

export function chunkCount(shardBytes: number): number {
  return Math.ceil(shardBytes / chunkBytes);
}

export function chunkOf(shard: Uint8Array, chunk: number): Uint8Array {
  return shard.subarray(chunk * chunkBytes, (chunk + 1) * chunkBytes);
}

export function shardLeaves(shard: Uint8Array): Uint8Array[] {
  return Array.from({ length: chunkCount(shard.length) }, (_, chunk) => merkleLeaf(chunkOf(shard, chunk)));
}

/** Little-endian ids: the machine's own order on every machine that JavaScript engines run on. */
export function bytesOfTokens(tokens: ShardTokens): Uint8Array {
  return bytesOf(tokens);
}

export function packTokens(ids: ArrayLike<number>, tokenBytes: 2 | 4): ShardTokens {
  return tokenBytes === 2 ? Uint16Array.from(ids) : Uint32Array.from(ids);
}

function tokensOfBytes(bytes: Uint8Array, tokenBytes: 2 | 4): ShardTokens {
  const aligned = bytes.byteOffset % tokenBytes === 0 ? bytes : bytes.slice();
  const length = aligned.length / tokenBytes;
  return tokenBytes === 2
    ? new Uint16Array(aligned.buffer, aligned.byteOffset, length)
    : new Uint32Array(aligned.buffer, aligned.byteOffset, length);
}

/**
 * The tokens of a whole shard, once its bytes are proved: `wrong-size`, `bad-proof` (naming the first bad chunk where
 * `leaves`, the expected leaf hashes, are at hand), or `token-out-of-range`.
 */
export function openShard(
  manifest: DatasetManifest,
  index: number,
  bytes: Uint8Array,
  leaves?: readonly Uint8Array[],
): Outcome<ShardTokens> {
  const info = must(manifest.shards[index], `no shard ${index}`);
  if (bytes.length !== info.bytes)
    return reject('wrong-size', `${bytes.length} bytes instead of ${info.bytes}`);
  const found = shardLeaves(bytes);
  if (!equalBytes(merkleRoot(found), info.merkleRoot)) {
    const bad = leaves ? found.findIndex((leaf, chunk) => !equalBytes(leaf, leaves[chunk] ?? leaf)) : -1;
    return reject(
      'bad-proof',
      bad < 0 ? 'content does not match the manifest' : `chunk ${bad} does not match the manifest`,
    );
  }
  const tokens = tokensOfBytes(bytes, manifest.tokenBytes);
  for (let i = 0; i < tokens.length; i++) {
    if (tokens[i]! >= manifest.vocabularySize)
      return reject('token-out-of-range', `token ${i} is ${tokens[i]}`);
  }
  return accept(tokens);
}

export interface ChunkWithProof {
  readonly chunk: Uint8Array;
  /** Sibling hashes from the leaf to the root. */
  readonly proof: readonly Uint8Array[];
}

/** A chunk of a shard (its verified bytes) for a peer: `no-such-chunk` where there is none. */
export function chunkWithProof(shard: Uint8Array, chunk: number): Outcome<ChunkWithProof> {
  if (!Number.isSafeInteger(chunk) || chunk < 0 || chunk >= chunkCount(shard.length))
    return reject('no-such-chunk');
  return accept({ chunk: chunkOf(shard, chunk), proof: merkleProof(shardLeaves(shard), chunk) });
}

/** Whether these bytes are chunk `chunk` of the shard. */
export function verifyChunk(
  info: ShardInfo,
  chunk: number,
  { chunk: bytes, proof }: ChunkWithProof,
): boolean {
  const count = chunkCount(info.bytes);
  const length = chunk === count - 1 ? info.bytes - chunk * chunkBytes : chunkBytes;
  return bytes.length === length && verifyMerkleProof(info.merkleRoot, count, chunk, bytes, proof);
}

/** A chunk and its proof as one message. */
export function encodeChunk({ chunk, proof }: ChunkWithProof): Uint8Array {
  return encodeCanonical({ chunk, proof: [...proof] });
}

/** Of a chunk message: the chunk, at most 14 hashes (a shard of 1 GiB), and framing. */
export const chunkMessageBytesMax = chunkBytes + 1024;

/** Untrusted bytes to a verified chunk: the codec's codes, `malformed` or `bad-proof`. */
export function decodeChunk(message: Uint8Array, info: ShardInfo, chunk: number): Outcome<Uint8Array> {
  const decoded = decodeCanonical(message, chunkMessageBytesMax);
  if (!decoded.ok) return decoded;
  const fields = decoded.value as Partial<ChunkWithProof> | null;
  const { chunk: bytes, proof } = typeof fields === 'object' && fields !== null ? fields : {};
  if (!(bytes instanceof Uint8Array) || !Array.isArray(proof)) return reject('malformed', 'chunk message');
  if (!proof.every((hash) => hash instanceof Uint8Array && hash.length === 32))
    return reject('malformed', 'proof');
  return verifyChunk(info, chunk, { chunk: bytes, proof })
    ? accept(bytes)
    : reject('bad-proof', `chunk ${chunk}`);
}
