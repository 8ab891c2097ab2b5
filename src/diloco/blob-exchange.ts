/**
 * Blobs by hash: a bounded shelf of those this node serves, and fetching one from whoever has it, chunk by chunk, one
 * peer after another. Whether the bytes have the hash and make sense is the screening's answer, not known here.
 */
import { z } from 'zod';
import { blobProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { fromHex, sharedBytes, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';

/** Bytes of one response: STACK's fastest piece. */
export const blobChunkBytes = 1024 * 1024;
/** Rounds for which a blob is served after its own: members that closed the round may still need it. */
const roundsServed = 2;

export interface BlobShelf {
  put(round: number, hash: HashHex, blob: Uint8Array): void;
  /** Like `put`, and durable: this node's own blob is needed again when everybody has lost the round at once. */
  keep(round: number, hash: HashHex, blob: Uint8Array): Promise<void>;
  /** In memory only. */
  get(hash: HashHex): Uint8Array | undefined;
  /** In memory, or kept durably. */
  find(hash: HashHex): Promise<Uint8Array | undefined>;
  /** Drops what is no longer served once `round` has begun. */
  beginRound(round: number): void;
}

/** Own blobs kept on disk: as many rounds back as a node started again may have to go, within a bound. */
const ownRoundsKept = 64;
const ownBytesMax = 512 * 1024 * 1024;
const ownPrefix = 'blob/';

function ownKey(round: number, hash: HashHex): string {
  return `${ownPrefix}${String(round).padStart(12, '0')}/${hash}`;
}

export function createBlobShelf(store: Store): BlobShelf {
  const shelf = new Map<HashHex, { round: number; blob: Uint8Array }>();
  /** Keys of the blobs kept, oldest first; read once, so that a stranger's question costs no look at the disk. */
  let index: Promise<Map<HashHex, string>> | undefined;
  const keptKeys = () => {
    index ??= store
      .list(ownPrefix)
      .then((keys) => new Map(keys.map((key) => [key.slice(key.lastIndexOf('/') + 1), key])));
    return index;
  };
  let beganRound = 0;
  const put = (round: number, hash: HashHex, blob: Uint8Array) => void shelf.set(hash, { round, blob });
  return {
    put,
    keep: async (round, hash, blob) => {
      put(round, hash, blob);
      const kept = Math.max(1, Math.min(ownRoundsKept, Math.floor(ownBytesMax / blob.length)));
      const keys = await keptKeys();
      await store.put(ownKey(round, hash), blob);
      keys.set(hash, ownKey(round, hash));
      for (const [old, key] of [...keys].slice(0, -kept)) {
        keys.delete(old);
        await store.delete(key);
      }
    },
    get: (hash) => shelf.get(hash)?.blob,
    find: async (hash) => {
      const held = shelf.get(hash)?.blob;
      if (held) return held;
      const key = (await keptKeys()).get(hash);
      const blob = key === undefined ? undefined : await store.get(key);
      // Whoever asks for one chunk asks for the others too.
      if (blob) put(beganRound, hash, blob);
      return blob;
    },
    beginRound: (round) => {
      beganRound = round;
      for (const [hash, entry] of shelf) if (entry.round + roundsServed < round) shelf.delete(hash);
    },
  };
}

const requestSchema = z.tuple([
  z.instanceof(Uint8Array).refine((value) => value.length === 32),
  z.number().int().min(0),
]);

/** Answers [hash, offset] with up to `blobChunkBytes` bytes: `malformed`, `unknown-blob` or `bad-offset`. */
export function serveBlobs(transport: Transport, shelf: BlobShelf): () => void {
  return transport.handle(blobProtocol, async (_from, request) => {
    const decoded = decodeCanonical(request, blobProtocol.requestBytesMax);
    if (!decoded.ok) return decoded;
    const parsed = requestSchema.safeParse(decoded.value);
    if (!parsed.success) return reject('malformed');
    const [hash, offset] = parsed.data;
    const blob = await shelf.find(toHex(hash));
    if (!blob) return reject('unknown-blob');
    if (offset >= blob.length) return reject('bad-offset');
    return accept(blob.subarray(offset, offset + blobChunkBytes));
  });
}

export interface BlobRequest {
  readonly transport: Transport;
  readonly hash: HashHex;
  readonly bytes: number;
  readonly from: NodeId;
  readonly signal?: AbortSignal | undefined;
}

/** The blob's bytes from one peer, of exactly the announced length; the transport's and the server's codes else. */
export async function fetchBlob(request: BlobRequest): Promise<Outcome<Uint8Array>> {
  const { transport, hash, bytes, from, signal } = request;
  const blob = sharedBytes(bytes);
  for (let offset = 0; offset < bytes; ) {
    const body = encodeCanonical([fromHex(hash), offset]);
    const answer = await transport.request(from, blobProtocol, body, signal);
    if (!answer.ok) return answer;
    const expected = Math.min(blobChunkBytes, bytes - offset);
    if (answer.value.length !== expected) return shortChunk(answer.value.length, expected);
    blob.set(answer.value, offset);
    offset += expected;
  }
  return accept(blob);
}

function shortChunk(received: number, expected: number): Rejection {
  return reject('truncated', `a chunk of ${received} bytes where ${expected} were due`);
}
