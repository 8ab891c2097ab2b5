/**
 * A contribution's announcement: the small signed message that names a blob by its hash. Fields are an array, so that
 * it stays under 250 bytes; the network's id is signed but not sent. Source of the encoding: docs/diloco.md.
 */
import { z } from 'zod';
import { type KeyPair, nodeIdOf, signDigest, verifyDigest } from '../identity/keys.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface Announcement {
  readonly round: number;
  /** The stage whose cohort it is for, counted from 0. */
  readonly stage: number;
  /** State hash of that stage's w_r that the pseudo-gradient is against. */
  readonly base: HashHex;
  readonly blobHash: HashHex;
  readonly blobBytes: number;
  /** Batches trained in the round. */
  readonly batches: number;
  readonly nodeId: string;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** Where announcements are published. */
export const contributionTopic = 'contribution';

export const announcementBytesMax = 320;

const bytes = (length: number) => z.instanceof(Uint8Array).refine((value) => value.length === length);
const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
/** Two bytes, so that a full round list fits a block; whether there is such a stage is for the pool to say. */
const stageNumber = z.number().int().min(0).max(65_535);

/** [round, stage, base, blobHash, blobBytes, batches, publicKey, signature]. */
const wireSchema = z.tuple([
  counter,
  stageNumber,
  bytes(32),
  bytes(32),
  counter,
  counter,
  bytes(33),
  bytes(64),
]);

type Body = Pick<Announcement, 'round' | 'stage' | 'base' | 'blobHash' | 'blobBytes' | 'batches'>;

function digestOf(networkId: Uint8Array, body: Body): Uint8Array {
  const { round, stage, base, blobHash, blobBytes, batches } = body;
  const fields = [round, stage, fromHex(base), fromHex(blobHash), blobBytes, batches];
  return taggedHash('neuroshard/contribution/2', networkId, encodeCanonical(fields));
}

export function announce(networkId: Uint8Array, body: Body, key: KeyPair): Announcement {
  const signature = signDigest(digestOf(networkId, body), key.secretKey);
  return { ...body, nodeId: key.nodeId, publicKey: key.publicKey, signature };
}

/** The array that goes on the wire, and into the decided list. */
export function announcementFields(one: Announcement): (number | Uint8Array)[] {
  const { round, stage, base, blobHash, blobBytes, batches, publicKey, signature } = one;
  return [round, stage, fromHex(base), fromHex(blobHash), blobBytes, batches, publicKey, signature];
}

export function encodeAnnouncement(one: Announcement): Uint8Array {
  return encodeCanonical(announcementFields(one));
}

/** Checks schema and signature: `malformed-announcement` or `bad-signature`. */
export function announcementOf(networkId: Uint8Array, fields: unknown): Outcome<Announcement> {
  const parsed = wireSchema.safeParse(fields);
  if (!parsed.success) return reject('malformed-announcement');
  const [round, stage, base, blobHash, blobBytes, batches, publicKey, signature] = parsed.data;
  const body = { round, stage, base: toHex(base), blobHash: toHex(blobHash), blobBytes, batches };
  if (!verifyDigest(digestOf(networkId, body), signature, publicKey)) return reject('bad-signature');
  return accept({ ...body, nodeId: nodeIdOf(publicKey), publicKey, signature });
}

/** Decodes untrusted bytes. */
export function decodeAnnouncement(networkId: Uint8Array, message: Uint8Array): Outcome<Announcement> {
  const decoded = decodeCanonical(message, announcementBytesMax);
  return decoded.ok ? announcementOf(networkId, decoded.value) : decoded;
}
