/**
 * Datasets between nodes: serving the manifest, the tokenizer and chunks of shards with their proofs, and a dataset
 * whose parts come from whoever gives them, nothing used before it is proved. Where fetched parts are kept is handed in.
 */
import { z } from 'zod';
import { chunkedSource, type Dataset, openDataset, type ShardSource } from '../genesis/dataset.ts';
import {
  type DatasetManifest,
  decodeManifest,
  encodeManifest,
  manifestLimits,
  type PublishedManifest,
} from '../genesis/manifest.ts';
import {
  bytesOfTokens,
  chunkCount,
  chunkOf,
  encodeChunk,
  openShard,
  type ShardTokens,
  shardLeaves,
} from '../genesis/shard.ts';
import { tokenizerBytesMax } from '../genesis/tokenizer.ts';
import { shardProtocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { concatBytes, equalBytes, fromHex, toHex } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, sha256 } from '../std/hash.ts';
import { merkleLevels, proofFromLevels } from '../std/merkle.ts';
import { accept, CodedError, type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { type Attempt, createPeerAsker, type PeerAsker } from './peer-asker.ts';

/** Bytes of the manifest or of tokenizer.json in one answer. */
export const documentPieceBytes = 64 * 1024;
/** Shards whose Merkle trees are kept for serving: up to 1 MiB each, for a shard of 1 GiB. */
const treesKept = 32;
/** For all pieces of the manifest or the tokenizer from one peer. */
const documentTimeoutMs = 120_000;
/** A round goes on meanwhile: who finds no shard for so long leaves its part out. */
const patienceMsDefault = 10_000;
const startPatienceMsDefault = 60_000;

const hashSchema = z.instanceof(Uint8Array).refine((value) => value.length === 32);
const indexSchema = z.number().int().min(0);
const requestSchema = z.union([
  z.tuple([z.enum(['manifest', 'tokenizer']), hashSchema, indexSchema]),
  z.tuple([z.literal('chunk'), hashSchema, indexSchema, indexSchema]),
]);
const pieceSchema = z.tuple([indexSchema, z.instanceof(Uint8Array)]);

/** What a node gives to others. */
export interface ServedDataset extends Pick<Dataset, 'manifest' | 'hash' | 'publisher' | 'tokenizerJson'> {
  /** Undefined: not here; a node asks nobody on behalf of somebody else. */
  shard(index: number): Promise<ShardTokens | undefined>;
}

/**
 * Answers `[manifest or tokenizer, dataset hash, piece]` with `[bytes of all, piece]`, and `[chunk, dataset hash, shard,
 * chunk]` with a chunk message. Rejects with `malformed`, `unknown-dataset`, `no-such-piece`, `no-such-chunk`
 * or `shard-not-held`.
 */
export function serveDataset(transport: Transport, served: ServedDataset): () => void {
  const documents = { manifest: encodeManifest(served), tokenizer: served.tokenizerJson };
  const trees = new Map<number, Uint8Array[][]>();
  const treeOf = (index: number, shard: Uint8Array) => {
    const levels = trees.get(index) ?? merkleLevels(shardLeaves(shard));
    trees.delete(index);
    trees.set(index, levels);
    if (trees.size > treesKept) trees.delete(trees.keys().next().value as number);
    return levels;
  };
  const chunk = async (index: number, position: number): Promise<Outcome<Uint8Array>> => {
    const info = served.manifest.shards[index];
    if (!info || position >= chunkCount(info.bytes)) return reject('no-such-chunk');
    const tokens = await served.shard(index);
    if (!tokens) return reject('shard-not-held');
    const shard = bytesOfTokens(tokens);
    const proof = proofFromLevels(treeOf(index, shard), position);
    return accept(encodeChunk({ chunk: chunkOf(shard, position), proof }));
  };
  return transport.handle(shardProtocol, async (_from, request) => {
    const decoded = decodeCanonical(request, shardProtocol.requestBytesMax);
    if (!decoded.ok) return decoded;
    const parsed = requestSchema.safeParse(decoded.value);
    if (!parsed.success) return reject('malformed');
    if (toHex(parsed.data[1]) !== served.hash) return reject('unknown-dataset');
    if (parsed.data[0] !== 'chunk') return pieceOf(documents[parsed.data[0]], parsed.data[2]);
    try {
      return await chunk(parsed.data[2], parsed.data[3]);
    } catch (error) {
      // A file of ours is gone or damaged: for whoever asks that is not having it.
      if (error instanceof CodedError) return reject('shard-not-held', error.code);
      throw error;
    }
  });
}

function pieceOf(document: Uint8Array, piece: number): Outcome<Uint8Array> {
  const offset = piece * documentPieceBytes;
  if (offset >= document.length) return reject('no-such-piece');
  return accept(encodeCanonical([document.length, document.subarray(offset, offset + documentPieceBytes)]));
}

/** What an earlier run has fetched. Nothing of it is trusted: all is proved again when it is read. */
export interface DatasetCache {
  /** Undefined where nothing is kept, or nothing that can be read. */
  load(): Promise<{ readonly published: PublishedManifest; readonly tokenizerJson: Uint8Array } | undefined>;
  save(published: PublishedManifest, tokenizerJson: Uint8Array): Promise<void>;
  holds(shard: number): boolean;
  read(shard: number, bytesMax: number): Promise<Uint8Array | undefined>;
  write(shard: number, bytes: Uint8Array): Promise<void>;
}

export interface FetchDatasetOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  /** Names the dataset. */
  readonly hash: HashHex;
  /** Ends all fetching, that of shards included. */
  readonly signal: AbortSignal;
  /** Without it fetched shards are kept in memory only, and not served. */
  readonly cache?: DatasetCache;
  /** How long to look for somebody who gives a chunk of a shard. */
  readonly patienceMs?: number;
  /** The same for the manifest and the tokenizer: a whole network may be starting. */
  readonly startPatienceMs?: number;
  readonly onFetched?: (part: FetchedPart) => void;
  /** Something that does not end the fetching: nobody has answered yet, or the cache cannot be used. */
  readonly onWarning?: (code: string, detail: string) => void;
}

export interface FetchedPart {
  readonly part: 'manifest' | 'tokenizer' | 'shard';
  /** Of a shard; else null. */
  readonly shard: number | null;
  readonly bytes: number;
}

export interface FetchedDataset {
  readonly dataset: Dataset;
  /** What of it this node can give to others. */
  readonly served: ServedDataset;
}

/**
 * A dataset from the cache as far as it goes, and from peers. Rejects with CodedError `dataset-unavailable` when nobody
 * gives the manifest or tokenizer within `startPatienceMs`, or with the signal's reason; `shard` rejects alike, and with
 * `shard-corrupt` where the publisher's own shard holds tokens outside the vocabulary.
 */
export async function fetchDataset(options: FetchDatasetOptions): Promise<FetchedDataset> {
  const { transport, clock, signal, cache } = options;
  const asker = createPeerAsker({
    transport,
    clock,
    signal,
    protocol: shardProtocol,
    unavailableCode: 'dataset-unavailable',
    onWaiting: (topic) => options.onWarning?.('dataset-waiting', `no peer has given ${topic} yet`),
  });
  const { published, tokenizerJson } =
    (await cachedDocuments(options)) ?? (await fetchDocuments(asker, options));
  const source = peerSource(asker, published.manifest, options);
  const dataset = openDataset(published, tokenizerJson, cachedSource(published.manifest, source, options));
  const shard = async (index: number) => (cache?.holds(index) ? dataset.shard(index) : undefined);
  return { dataset, served: { ...dataset, shard } };
}

async function cachedDocuments({ cache, hash, onWarning }: FetchDatasetOptions) {
  const known = await cache?.load();
  if (!known) return undefined;
  const { published, tokenizerJson } = known;
  if (published.hash === hash && equalBytes(sha256(tokenizerJson), published.manifest.tokenizerHash))
    return known;
  onWarning?.('cache-damaged', 'what was kept of the dataset is not what it should be: fetching it again');
  return undefined;
}

async function fetchDocuments(asker: PeerAsker, options: FetchDatasetOptions) {
  const { hash, cache } = options;
  const published = await fetchDocument(asker, options, {
    part: 'manifest',
    bytesMax: manifestLimits.bytesMax,
    open: (bytes) => {
      const decoded = decodeManifest(bytes);
      return decoded.ok && decoded.value.hash !== hash ? reject('hash-mismatch') : decoded;
    },
  });
  const tokenizerJson = await fetchDocument(asker, options, {
    part: 'tokenizer',
    bytesMax: tokenizerBytesMax,
    open: (bytes) =>
      equalBytes(sha256(bytes), published.manifest.tokenizerHash) ? accept(bytes) : reject('hash-mismatch'),
  });
  await cache?.save(published, tokenizerJson).catch((error: unknown) => warnOfCache(options, error));
  return { published, tokenizerJson };
}

interface DocumentRequest<T> {
  readonly part: 'manifest' | 'tokenizer';
  readonly bytesMax: number;
  /** Judges the whole: its pieces cannot be proved alone, so all come from one peer. */
  open(bytes: Uint8Array): Outcome<T>;
}

async function fetchDocument<T>(
  asker: PeerAsker,
  options: FetchDatasetOptions,
  request: DocumentRequest<T>,
): Promise<T> {
  const { part } = request;
  const attempt = async (peer: NodeId): Promise<Attempt<{ value: T; bytes: number }>> => {
    const collected = await withDeadline(options, documentTimeoutMs, (signal) =>
      collectPieces(asker, { ...request, peer, hash: options.hash, signal }),
    );
    if (collected.kind !== 'given') return collected;
    const opened = request.open(collected.value);
    if (!opened.ok) return { kind: 'lied', code: opened.code };
    return { kind: 'given', value: { value: opened.value, bytes: collected.value.length } };
  };
  const { value, bytes } = await asker.ask({
    topic: `the ${part} of dataset ${options.hash}`,
    patienceMs: options.startPatienceMs ?? startPatienceMsDefault,
    attempt,
  });
  options.onFetched?.({ part, shard: null, bytes });
  return value;
}

/** All pieces of a document from one peer, each of the size that the first answer's total asks for. */
async function collectPieces(
  asker: PeerAsker,
  from: Pick<DocumentRequest<unknown>, 'part' | 'bytesMax'> & {
    readonly peer: NodeId;
    readonly hash: HashHex;
    readonly signal: AbortSignal;
  },
): Promise<Attempt<Uint8Array>> {
  const pieces: Uint8Array[] = [];
  let length = 0;
  let total = 1;
  for (let piece = 0; length < total; piece++) {
    const body = encodeCanonical([from.part, fromHex(from.hash), piece]);
    const answer = await asker.request(from.peer, body, from.signal);
    if (!answer.ok) return attemptOf(answer);
    const decoded = decodeCanonical(answer.value, shardProtocol.responseBytesMax);
    const parsed = pieceSchema.safeParse(decoded.ok ? decoded.value : undefined);
    if (!parsed.success) return { kind: 'lied', code: 'malformed' };
    const [claimed, bytes] = parsed.data;
    if (piece === 0) total = claimed;
    const due = Math.min(documentPieceBytes, total - length);
    if (claimed !== total || total > from.bytesMax || bytes.length !== due || due === 0)
      return { kind: 'lied', code: 'malformed' };
    pieces.push(bytes);
    length += bytes.length;
  }
  return { kind: 'given', value: concatBytes(...pieces) };
}

async function withDeadline<T>(
  { clock, signal }: Pick<FetchDatasetOptions, 'clock' | 'signal'>,
  timeoutMs: number,
  work: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  const end = () => deadline.abort();
  const cancel = clock.setTimer(timeoutMs, end);
  signal.addEventListener('abort', end, { once: true });
  try {
    return await work(deadline.signal);
  } finally {
    cancel();
    signal.removeEventListener('abort', end);
  }
}

/** Of a request that was not answered with bytes. */
function attemptOf({ code }: Rejection): Attempt<never> {
  if (code === 'too-large') return { kind: 'lied', code };
  const isAbsent = code === 'unknown-dataset' || code === 'shard-not-held' || code === 'unknown-protocol';
  return { kind: isAbsent ? 'absent' : 'failed' };
}

/** Shards chunk by chunk from peers, neighbouring chunks and shards from different ones. */
function peerSource(
  asker: PeerAsker,
  manifest: DatasetManifest,
  { hash, patienceMs = patienceMsDefault }: FetchDatasetOptions,
): ShardSource {
  return chunkedSource(manifest, (shard, chunk, take) =>
    asker.ask({
      topic: `shard ${shard} of dataset ${hash}`,
      start: shard + chunk,
      patienceMs,
      attempt: async (peer): Promise<Attempt<void>> => {
        const answer = await asker.request(peer, encodeCanonical(['chunk', fromHex(hash), shard, chunk]));
        if (!answer.ok) return attemptOf(answer);
        const taken = take(answer.value);
        return taken.ok ? { kind: 'given', value: undefined } : { kind: 'lied', code: taken.code };
      },
    }),
  );
}

/** Shards from the cache where they are whole there, else from `source` and then kept. */
function cachedSource(
  manifest: DatasetManifest,
  source: ShardSource,
  options: FetchDatasetOptions,
): ShardSource {
  const { cache, onFetched, onWarning } = options;
  const fromCache = async (index: number, bytesMax: number) => {
    if (!cache?.holds(index)) return undefined;
    const bytes = await cache.read(index, bytesMax);
    if (bytes && openShard(manifest, index, bytes).ok) return bytes;
    onWarning?.('cache-damaged', `shard ${index} was kept damaged: fetching it again`);
    return undefined;
  };
  return {
    nameOf: source.nameOf,
    read: async (index) => {
      const info = manifest.shards[index]!;
      const kept = await fromCache(index, info.bytes);
      if (kept) return kept;
      const bytes = await source.read(index);
      const opened = openShard(manifest, index, bytes);
      if (!opened.ok) throw new CodedError('shard-corrupt', `${source.nameOf(index)}: ${opened.detail}`);
      await cache?.write(index, bytes).catch((error: unknown) => warnOfCache(options, error));
      onFetched?.({ part: 'shard', shard: index, bytes: bytes.length });
      return bytes;
    },
  };
}

/** A full disk does not end training: what is fetched is used all the same, and fetched again another time. */
function warnOfCache({ onWarning }: FetchDatasetOptions, error: unknown): void {
  onWarning?.('cache-failed', error instanceof Error ? error.message : String(error));
}
