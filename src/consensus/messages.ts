/**
 * The wire messages of consensus: DAG-CBOR arrays whose first item counts retransmissions (so that a gossip layer
 * which drops repeated bytes lets them pass; 0 the first time) and whose second names the kind. A vote takes about
 * 110 bytes. Decoding checks form and size only, never signatures.
 */
import { signatureBytes } from '../identity/keys.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { blockBody, blockHash, decidedBody, isHeight, readBlock, readDecidedList } from './block.ts';
import { certificateBody, readCertificate, readHash, voteCode, voteKindOf } from './certificate.ts';
import type { ConsensusLimits } from './limits.ts';
import type { Block, Certificate, DecidedBlock, VoteKind } from './types.ts';

export interface Vote {
  readonly kind: VoteKind;
  readonly height: number;
  /** `noHash` for a dummy. */
  readonly blockHash: Uint8Array;
  readonly member: number;
  readonly signature: Uint8Array;
}

export interface Proposal {
  readonly block: Block;
  readonly hash: Uint8Array;
  /** By the leader of the block's height. */
  readonly signature: Uint8Array;
}

export type Message =
  | { readonly type: 'vote'; readonly vote: Vote }
  | { readonly type: 'proposal'; readonly proposal: Proposal }
  | { readonly type: 'certificate'; readonly certificate: Certificate }
  /** Asks whoever has the block of this hash, and the proof that it is notarized, to send them. Unsigned. */
  | { readonly type: 'want'; readonly height: number; readonly hash: Uint8Array }
  | { readonly type: 'decided'; readonly blocks: readonly DecidedBlock[] };

const kinds = { vote: 0, proposal: 1, certificate: 2, want: 3, decided: 4 } as const;

export function encodeMessage(message: Message, attempt = 0): Uint8Array {
  switch (message.type) {
    case 'vote': {
      const { kind, height, blockHash: hash, member, signature } = message.vote;
      const block = kind === 'dummy' ? null : hash;
      return encodeCanonical([attempt, kinds.vote, voteCode(kind), height, block, member, signature]);
    }
    case 'proposal':
      return encodeCanonical([
        attempt,
        kinds.proposal,
        blockBody(message.proposal.block),
        message.proposal.signature,
      ]);
    case 'certificate':
      return encodeCanonical([attempt, kinds.certificate, certificateBody(message.certificate)]);
    case 'want':
      return encodeCanonical([attempt, kinds.want, message.height, message.hash]);
    case 'decided':
      return encodeCanonical([attempt, kinds.decided, message.blocks.map(decidedBody)]);
  }
}

export interface Received {
  /** 0 the first time its sender said this; more shows a sender that makes no progress. */
  readonly attempt: number;
  readonly message: Message;
}

/** Codes: `too-large`, `malformed`, `not-canonical`, `schema`. */
export function decodeMessage(
  bytes: Uint8Array,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<Received> {
  const decoded = decodeCanonical(bytes, limits.messageBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value)) return reject('schema', 'not an array');
  const [attempt, kind, ...rest] = decoded.value as unknown[];
  if (typeof attempt !== 'number' || !Number.isInteger(attempt) || attempt < 0 || attempt > 0xffffffff) {
    return reject('schema', 'attempt');
  }
  const message = readMessage(kind, rest, networkId, limits);
  return message.ok ? accept({ attempt, message: message.value }) : message;
}

function readMessage(
  kind: unknown,
  rest: readonly unknown[],
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<Message> {
  switch (kind) {
    case kinds.vote:
      return readVote(rest);
    case kinds.proposal: {
      if (rest.length !== 2 || !isSignature(rest[1])) return reject('schema', 'proposal');
      const block = readBlock(rest[0], limits);
      if (!block.ok) return block;
      const hash = blockHash(networkId, block.value);
      return accept({ type: 'proposal', proposal: { block: block.value, hash, signature: rest[1] } });
    }
    case kinds.certificate: {
      if (rest.length !== 1) return reject('schema', 'certificate');
      const certificate = readCertificate(rest[0]);
      return certificate.ok ? accept({ type: 'certificate', certificate: certificate.value }) : certificate;
    }
    case kinds.want: {
      const [height, hash] = rest;
      if (rest.length !== 2 || !isHeight(height)) return reject('schema', 'want');
      if (!(hash instanceof Uint8Array) || hash.length !== 32) return reject('schema', 'want');
      return accept({ type: 'want', height, hash });
    }
    case kinds.decided: {
      if (rest.length !== 1) return reject('schema', 'decided');
      const blocks = readDecidedList(rest[0], networkId, limits);
      return blocks.ok ? accept({ type: 'decided', blocks: blocks.value }) : blocks;
    }
    default:
      return reject('schema', 'unknown kind');
  }
}

function readVote(rest: readonly unknown[]): Outcome<Message> {
  const [code, height, hash, member, signature] = rest;
  const kind = voteKindOf(code);
  if (rest.length !== 5 || !kind || !isHeight(height)) return reject('schema', 'vote');
  const named = readHash(kind, hash);
  if (!named) return reject('schema', 'vote for what');
  if (typeof member !== 'number' || !Number.isInteger(member) || member < 0) return reject('schema', 'voter');
  if (!isSignature(signature)) return reject('schema', 'vote signature');
  return accept({ type: 'vote', vote: { kind, height, blockHash: named, member, signature } });
}

function isSignature(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === signatureBytes;
}
