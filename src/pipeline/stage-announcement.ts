/**
 * What a node says of the stage it holds: a small signed message, the latest of an author counting. Fields are an array;
 * the network's id is signed but not sent. It knows no transport.
 */
import { z } from 'zod';
import {
  type KeyPair,
  nodeIdOf,
  publicKeyBytes,
  signatureBytes,
  signDigest,
  verifyDigest,
} from '../identity/keys.ts';
import type { NodeId } from '../net/transport.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

export interface StageState {
  readonly stage: number;
  /** What the node may use, in bytes. */
  readonly memoryBytes: number;
  /** Measured, of this stage. */
  readonly tokensPerSecond: number;
  readonly round: number;
  /** Whether it takes work now. */
  readonly accepting: boolean;
}

export interface StageAnnouncement extends StageState {
  readonly nodeId: NodeId;
  /** Grows with every announcement of the node, across its restarts too: milliseconds of its clock, or one more than the last. */
  readonly seq: number;
}

/** As it came: who claims to have said it is known before the signature is checked. */
export interface UnverifiedAnnouncement {
  readonly announcement: StageAnnouncement;
  readonly publicKey: Uint8Array;
  readonly signature: Uint8Array;
}

/** Where announcements are published. */
export const stageTopic = 'stage';

export const stageAnnouncementBytesMax = 256;

const counter = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const bytes = (length: number) => z.instanceof(Uint8Array).refine((value) => value.length === length);

/** [seq, stage, memoryBytes, tokensPerSecond, round, accepting, publicKey, signature]. */
const wireSchema = z.tuple([
  counter,
  z.number().int().min(0).max(1023),
  counter,
  z.number().min(0).max(1e12),
  counter,
  z.boolean(),
  bytes(publicKeyBytes),
  bytes(signatureBytes),
]);

function bodyOf(one: Omit<StageAnnouncement, 'nodeId'>) {
  return [one.seq, one.stage, one.memoryBytes, one.tokensPerSecond, one.round, one.accepting] as const;
}

function digestOf(networkId: Uint8Array, body: Omit<StageAnnouncement, 'nodeId'>): Uint8Array {
  return taggedHash('neuroshard/stage/1', networkId, encodeCanonical(bodyOf(body)));
}

export function encodeStageAnnouncement(
  networkId: Uint8Array,
  body: Omit<StageAnnouncement, 'nodeId'>,
  key: KeyPair,
): Uint8Array {
  const signature = signDigest(digestOf(networkId, body), key.secretKey);
  return encodeCanonical([...bodyOf(body), key.publicKey, signature]);
}

/** Decodes untrusted bytes: `malformed-announcement`. */
export function decodeStageAnnouncement(message: Uint8Array): Outcome<UnverifiedAnnouncement> {
  const decoded = decodeCanonical(message, stageAnnouncementBytesMax);
  const parsed = wireSchema.safeParse(decoded.ok ? decoded.value : undefined);
  if (!parsed.success) return reject('malformed-announcement');
  const [seq, stage, memoryBytes, tokensPerSecond, round, accepting, publicKey, signature] = parsed.data;
  const nodeId = nodeIdOf(publicKey);
  const announcement = { nodeId, seq, stage, memoryBytes, tokensPerSecond, round, accepting };
  return accept({ announcement, publicKey, signature });
}

export function isSignedByAuthor(
  networkId: Uint8Array,
  { announcement, publicKey, signature }: UnverifiedAnnouncement,
): boolean {
  return verifyDigest(digestOf(networkId, announcement), signature, publicKey);
}
