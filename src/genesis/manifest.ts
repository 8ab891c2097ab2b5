/**
 * The dataset manifest: the canonical bytes that name a dataset. Everything else of a dataset (tokenizer, shards) is
 * checked against it. It knows nothing of files or networks.
 */
import { type KeyPair, publicKeyBytes, signatureBytes } from '../identity/keys.ts';
import { bodyHash, signBody, verifySigned } from '../identity/signed.ts';
import { toHex } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import type { HashHex } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface DatasetSource {
  /** Where the text came from: a file name or an address. */
  readonly origin: string;
  /** SPDX expression, or words where none fits. */
  readonly licence: string;
  readonly documents: number;
  /** Hash chain over the documents in order (`documentsHash`), 32 bytes: the same for plain and gzipped files. */
  readonly hash: Uint8Array;
}

export interface ShardInfo {
  /** Position in `shards`. */
  readonly index: number;
  readonly tokens: number;
  /** tokens × tokenBytes. */
  readonly bytes: number;
  /** Root over leaves of 64 KiB, 32 bytes. */
  readonly merkleRoot: Uint8Array;
}

export interface DatasetManifest {
  readonly format: 1;
  readonly name: string;
  readonly sources: readonly DatasetSource[];
  /** SHA-256 of tokenizer.json, 32 bytes. */
  readonly tokenizerHash: Uint8Array;
  readonly vocabularySize: number;
  /** Bytes of one little-endian token id: 2 where the vocabulary has at most 65,536 tokens, else 4. */
  readonly tokenBytes: 2 | 4;
  readonly shards: readonly ShardInfo[];
  /** Indices of the shards that are never assigned for training, ascending. */
  readonly heldOut: readonly number[];
}

/** A manifest with what names it and who published it; `publisher` is null where nobody signed. */
export interface PublishedManifest {
  readonly manifest: DatasetManifest;
  /** Of the manifest alone: signing or rebuilding it does not change its name. */
  readonly hash: HashHex;
  readonly publisher: { readonly publicKey: Uint8Array; readonly signature: Uint8Array } | null;
}

const tag = 'neuroshard/dataset/1';

/** Bounds of a manifest that may come from anyone. */
export const manifestLimits = {
  bytesMax: 16 * 1024 * 1024,
  shardsMax: 65_536,
  sourcesMax: 4_096,
  textCharactersMax: 2_048,
  vocabularySizeMax: 1 << 20,
  shardBytesMax: 1 << 30,
} as const;

function bodyOf(manifest: DatasetManifest): Canonical {
  return manifest as unknown as Canonical;
}

export function manifestHash(manifest: DatasetManifest): HashHex {
  return toHex(bodyHash(tag, bodyOf(manifest)));
}

export function publishManifest(manifest: DatasetManifest, key: KeyPair | null): PublishedManifest {
  const hash = manifestHash(manifest);
  if (!key) return { manifest, hash, publisher: null };
  const { publicKey, signature } = signBody(tag, bodyOf(manifest), key);
  return { manifest, hash, publisher: { publicKey, signature } };
}

export function encodeManifest({ manifest, publisher }: PublishedManifest): Uint8Array {
  return encodeCanonical({
    body: bodyOf(manifest),
    publicKey: publisher?.publicKey ?? null,
    signature: publisher?.signature ?? null,
  });
}

/** Shards that nodes are trained on, ascending. */
export function trainingShards(manifest: DatasetManifest): number[] {
  const heldOut = new Set(manifest.heldOut);
  return manifest.shards.map((shard) => shard.index).filter((index) => !heldOut.has(index));
}

/**
 * Decodes untrusted bytes and checks everything that the manifest says about itself. Codes: `too-large`, `malformed`,
 * `not-canonical`, `bad-manifest` (detail names the field), `bad-signature`.
 */
export function decodeManifest(bytes: Uint8Array): Outcome<PublishedManifest> {
  const decoded = decodeCanonical(bytes, manifestLimits.bytesMax);
  if (!decoded.ok) return decoded;
  const outer = fieldsOf(decoded.value, ['body', 'publicKey', 'signature']);
  if (!outer) return reject('bad-manifest', 'not a dataset manifest');
  const wrong = wrongField(outer.body);
  if (wrong) return reject('bad-manifest', wrong);
  const manifest = outer.body as DatasetManifest;
  const hash = manifestHash(manifest);
  const { publicKey, signature } = outer;
  if (publicKey === null && signature === null) return accept({ manifest, hash, publisher: null });
  if (!isBytes(publicKey, publicKeyBytes) || !isBytes(signature, signatureBytes)) {
    return reject('bad-manifest', 'publisher key or signature');
  }
  if (!verifySigned(tag, { body: bodyOf(manifest), publicKey, signature })) return reject('bad-signature');
  return accept({ manifest, hash, publisher: { publicKey, signature } });
}

/** Names what is wrong with a decoded manifest body, or null. */
function wrongField(value: unknown): string | null {
  const body = fieldsOf(value, [
    'format',
    'heldOut',
    'name',
    'shards',
    'sources',
    'tokenBytes',
    'tokenizerHash',
    'vocabularySize',
  ]);
  if (!body) return 'fields of the manifest';
  if (body.format !== 1) return 'format';
  if (!isText(body.name) || body.name === '') return 'name';
  if (!isBytes(body.tokenizerHash, 32)) return 'tokenizerHash';
  const vocabularySize = body.vocabularySize;
  if (!isInteger(vocabularySize, 1, manifestLimits.vocabularySizeMax)) return 'vocabularySize';
  if (body.tokenBytes !== tokenBytesFor(vocabularySize)) return 'tokenBytes';
  return (
    wrongSources(body.sources) ??
    wrongShards(body.shards, tokenBytesFor(vocabularySize)) ??
    wrongHeldOut(body.heldOut, (body.shards as unknown[]).length)
  );
}

export function tokenBytesFor(vocabularySize: number): 2 | 4 {
  return vocabularySize <= 65_536 ? 2 : 4;
}

function wrongSources(value: unknown): string | null {
  if (!Array.isArray(value) || value.length > manifestLimits.sourcesMax) return 'sources';
  for (const [index, item] of value.entries()) {
    const source = fieldsOf(item, ['documents', 'hash', 'licence', 'origin']);
    if (!source || !isText(source.origin) || !isText(source.licence)) return `sources[${index}]`;
    if (!isBytes(source.hash, 32)) return `sources[${index}].hash`;
    if (!isInteger(source.documents, 0, Number.MAX_SAFE_INTEGER)) return `sources[${index}].documents`;
  }
  return null;
}

function wrongShards(value: unknown, tokenBytes: number): string | null {
  if (!Array.isArray(value) || value.length < 2 || value.length > manifestLimits.shardsMax) return 'shards';
  for (const [index, item] of value.entries()) {
    const shard = fieldsOf(item, ['bytes', 'index', 'merkleRoot', 'tokens']);
    if (!shard || shard.index !== index) return `shards[${index}]`;
    const tokens = shard.tokens;
    if (!isInteger(tokens, 1, manifestLimits.shardBytesMax / tokenBytes)) return `shards[${index}].tokens`;
    if (shard.bytes !== tokens * tokenBytes) return `shards[${index}].bytes`;
    if (!isBytes(shard.merkleRoot, 32)) return `shards[${index}].merkleRoot`;
  }
  return null;
}

/** At least one shard on either side, ascending, none twice. */
function wrongHeldOut(value: unknown, shards: number): string | null {
  if (!Array.isArray(value) || value.length === 0 || value.length >= shards) return 'heldOut';
  let previous = -1;
  for (const index of value) {
    if (!isInteger(index, previous + 1, shards - 1)) return 'heldOut';
    previous = index;
  }
  return null;
}

function fieldsOf(value: unknown, names: readonly string[]): Record<string, unknown> | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || value instanceof Uint8Array)
    return null;
  const keys = Object.keys(value);
  if (keys.length !== names.length || names.some((name) => !Object.hasOwn(value, name))) return null;
  return value as Record<string, unknown>;
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value.length <= manifestLimits.textCharactersMax;
}

function isBytes(value: unknown, length: number): value is Uint8Array {
  return value instanceof Uint8Array && value.length === length;
}

function isInteger(value: unknown, min: number, max: number): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= min && value <= max;
}
