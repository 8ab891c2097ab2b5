/**
 * Builds a dataset from documents: trains the tokenizer, encodes, cuts shards, and writes the manifest. The same
 * documents and options give the same manifest hash on every machine. Where shards are put is handed in.
 */
import type { KeyPair } from '../identity/keys.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256, taggedHash } from '../std/hash.ts';
import { merkleRoot } from '../std/merkle.ts';
import { CodedError } from '../std/outcome.ts';
import { tokenizerJsonOf, trainBpe, WordCounter } from './bpe-trainer.ts';
import { type Dataset, memoryDataset } from './dataset.ts';
import {
  type DatasetSource,
  manifestLimits,
  type PublishedManifest,
  publishManifest,
  type ShardInfo,
  tokenBytesFor,
} from './manifest.ts';
import type { Document } from './readers/source.ts';
import { bytesOfTokens, packTokens, shardLeaves } from './shard.ts';
import { ShardPacker } from './shard-packer.ts';
import { loadTokenizer } from './tokenizer.ts';

export interface CorpusSource {
  readonly origin: string;
  readonly licence: string;
  /** Read twice: for the tokenizer, then for the shards. */
  documents(): AsyncIterable<Document>;
}

export interface BuildOptions {
  readonly name: string;
  readonly sources: readonly CorpusSource[];
  /** Wanted; a small corpus may give fewer tokens. Not used where a tokenizer is given. */
  readonly vocabularySize: number;
  /** An existing tokenizer.json instead of training one. */
  readonly tokenizerJson?: Uint8Array;
  /** Wanted tokens of a shard; by default 65,536, and less for a small corpus. */
  readonly shardTokens?: number;
  /** Every how many shards one is held out. */
  readonly heldOutEvery?: number;
  /** Signs the manifest. */
  readonly key?: KeyPair;
  /** Text that the tokenizer is trained on, from the start of the corpus, in UTF-16 units. */
  readonly tokenizerTextMax?: number;
  readonly onProgress?: (progress: BuildProgress) => void;
  /** Ends the build with the signal's reason, between two documents. */
  readonly signal?: AbortSignal;
}

export interface BuildProgress {
  readonly phase: 'tokenizer' | 'shards';
  readonly documents: number;
  /** Known in the second phase, unless the tokenizer was given or trained on a part. */
  readonly documentsTotal: number | null;
  readonly tokens: number;
}

export interface BuiltDataset {
  readonly published: PublishedManifest;
  readonly tokenizerJson: Uint8Array;
}

/** Puts a finished shard somewhere; `leaves` are the hashes of its chunks. */
export type PutShard = (index: number, bytes: Uint8Array, leaves: readonly Uint8Array[]) => Promise<void>;

export const buildDefaults = { heldOutEvery: 16, tokenizerTextMax: 256 * 1024 * 1024 } as const;

/** Throws the readers' errors, `bad-option`, `corpus-too-small` or `too-many-shards`. */
export async function buildDataset(options: BuildOptions, putShard: PutShard): Promise<BuiltDataset> {
  checkOptions(options);
  const { tokenizerJson, documentsTotal } = await prepareTokenizer(options);
  const tokenizer = loadTokenizer(tokenizerJson);
  const tokenBytes = tokenBytesFor(tokenizer.vocabularySize);
  const shards: ShardInfo[] = [];
  const packer = new ShardPacker(options.shardTokens, async (ids) => {
    const index = shards.length;
    if (index === manifestLimits.shardsMax) {
      throw new CodedError(
        'too-many-shards',
        `over ${manifestLimits.shardsMax} shards: build with larger shards`,
      );
    }
    const bytes = bytesOfTokens(packTokens(ids, tokenBytes));
    const leaves = shardLeaves(bytes);
    shards.push({ index, tokens: ids.length, bytes: bytes.length, merkleRoot: merkleRoot(leaves) });
    await putShard(index, bytes, leaves);
  });
  const sources: DatasetSource[] = [];
  let documents = 0;
  for (const source of options.sources) {
    let hash = documentsHashStart();
    const before = documents;
    for await (const document of source.documents()) {
      options.signal?.throwIfAborted();
      hash = documentsHash(hash, document);
      await packer.add(tokenizer.encode(document.text));
      if (document.continued) continue;
      await packer.add([tokenizer.endOfText]);
      documents++;
      options.onProgress?.({ phase: 'shards', documents, documentsTotal, tokens: packer.tokens });
    }
    sources.push({ origin: source.origin, licence: source.licence, documents: documents - before, hash });
  }
  await packer.end();
  if (shards.length < 2) {
    throw new CodedError(
      'corpus-too-small',
      `${packer.tokens} tokens do not fill two shards: give more text or smaller shards`,
    );
  }
  const manifest = {
    format: 1,
    name: options.name,
    sources,
    tokenizerHash: sha256(tokenizerJson),
    vocabularySize: tokenizer.vocabularySize,
    tokenBytes,
    shards,
    heldOut: heldOutShards(shards.length, options.heldOutEvery ?? buildDefaults.heldOutEvery),
  } as const;
  return { published: publishManifest(manifest, options.key ?? null), tokenizerJson };
}

/** Builds a dataset that stays in memory: for tests and the simulator. */
export async function buildMemoryDataset(options: BuildOptions): Promise<Dataset> {
  const shards: Uint8Array[] = [];
  const { published, tokenizerJson } = await buildDataset(
    options,
    async (_index, bytes) => void shards.push(bytes),
  );
  return memoryDataset(published, tokenizerJson, shards);
}

function checkOptions({ name, sources, shardTokens, heldOutEvery }: BuildOptions): void {
  const bad = (what: string) => new CodedError('bad-option', what);
  const textMax = manifestLimits.textCharactersMax;
  if (name === '' || name.length > textMax) throw bad('a dataset needs a name');
  if (sources.length === 0 || sources.length > manifestLimits.sourcesMax)
    throw bad('a dataset needs sources');
  if (sources.some(({ origin, licence }) => origin.length > textMax || licence.length > textMax)) {
    throw bad(`origin and licence have at most ${textMax} characters`);
  }
  const shardTokensMax = manifestLimits.shardBytesMax / 8;
  if (
    shardTokens !== undefined &&
    !(Number.isInteger(shardTokens) && shardTokens >= 64 && shardTokens <= shardTokensMax)
  ) {
    throw bad(`a shard has 64 to ${shardTokensMax} tokens, not ${shardTokens}`);
  }
  if (heldOutEvery !== undefined && !(Number.isInteger(heldOutEvery) && heldOutEvery >= 2)) {
    throw bad('at most every second shard can be held out');
  }
}

async function prepareTokenizer(options: BuildOptions) {
  const { tokenizerJson, sources, vocabularySize, onProgress } = options;
  if (tokenizerJson) return { tokenizerJson, documentsTotal: null };
  const textMax = options.tokenizerTextMax ?? buildDefaults.tokenizerTextMax;
  const counter = new WordCounter();
  let documents = 0;
  let textLength = 0;
  for (const source of sources) {
    for await (const { text, continued } of source.documents()) {
      options.signal?.throwIfAborted();
      counter.add(text);
      textLength += text.length;
      if (!continued)
        onProgress?.({ phase: 'tokenizer', documents: ++documents, documentsTotal: null, tokens: 0 });
      if (textLength >= textMax) break;
    }
    if (textLength >= textMax) break;
  }
  const documentsTotal = textLength >= textMax ? null : documents;
  return { tokenizerJson: tokenizerJsonOf(trainBpe(counter.counts, vocabularySize)), documentsTotal };
}

function documentsHashStart(): Uint8Array {
  return taggedHash('neuroshard/documents/1');
}

/** The hash chain of a source: over each text in order, and whether the next continues it. */
function documentsHash(hash: Uint8Array, { text, continued }: Document): Uint8Array {
  return taggedHash('neuroshard/documents/1', hash, new Uint8Array([continued ? 1 : 0]), utf8(text));
}

/** Every `every`-th shard from the middle of the first run on; of a short dataset, the middle one. */
function heldOutShards(count: number, every: number): number[] {
  const first = Math.min(every, count) >> 1;
  const heldOut: number[] = [];
  for (let index = first; index < count; index += every) heldOut.push(index);
  return heldOut;
}
