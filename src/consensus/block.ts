/**
 * Blocks: how they are named by a hash, and how decided ones are written for a store or for a peer that was away.
 * A hash covers the network, so blocks of two networks never meet. Payloads stay opaque.
 */
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { sha256, taggedHash } from '../std/hash.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { certificateBody, readCertificate } from './certificate.ts';
import type { ConsensusLimits } from './limits.ts';
import type { Block, DecidedBlock } from './types.ts';

const blockTag = 'neuroshard/consensus/block/1';

export const genesisHash: Uint8Array = new Uint8Array(32);

export function blockHash(networkId: Uint8Array, block: Block): Uint8Array {
  const header = [networkId, block.height, block.parentHeight, block.parentHash, sha256(block.payload)];
  return taggedHash(blockTag, encodeCanonical(header));
}

export function blockBody(block: Block): Canonical {
  return [block.height, block.parentHeight, block.parentHash, block.payload];
}

export function isHeight(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 1;
}

/** A block of the right form: `schema` otherwise. Whether it is anybody's block, signatures say. */
export function readBlock(value: unknown, limits: ConsensusLimits): Outcome<Block> {
  if (!Array.isArray(value) || value.length !== 4) return reject('schema', 'block');
  const [height, parentHeight, parentHash, payload] = value as unknown[];
  if (!isHeight(height)) return reject('schema', 'block height');
  if (parentHeight !== 0 && !isHeight(parentHeight)) return reject('schema', 'parent height');
  if (parentHeight >= height) return reject('schema', 'parent not below the block');
  if (!(parentHash instanceof Uint8Array) || parentHash.length !== 32) return reject('schema', 'parent hash');
  if (!(payload instanceof Uint8Array)) return reject('schema', 'payload');
  if (payload.length > limits.payloadBytesMax)
    return reject('too-large', `payload of ${payload.length} bytes`);
  return accept({ height, parentHeight, parentHash, payload });
}

export function decidedBody(decided: DecidedBlock): Canonical {
  return [blockBody(decided.block), decided.certificate ? certificateBody(decided.certificate) : null];
}

export function readDecided(
  value: unknown,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<DecidedBlock> {
  if (!Array.isArray(value) || value.length !== 2) return reject('schema', 'decided block');
  const block = readBlock(value[0], limits);
  if (!block.ok) return block;
  const hash = blockHash(networkId, block.value);
  if (value[1] === null) return accept({ block: block.value, hash });
  const certificate = readCertificate(value[1]);
  if (!certificate.ok) return certificate;
  return accept({ block: block.value, hash, certificate: certificate.value });
}

/** The body of an answer to a peer that was away. */
export function encodeDecided(blocks: readonly DecidedBlock[]): Uint8Array {
  return encodeCanonical(blocks.map(decidedBody));
}

/** Checks form and bounds only; `adopt` checks links and certificates. */
export function decodeDecided(
  bytes: Uint8Array,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<DecidedBlock[]> {
  const value = decodeCanonical(bytes, limits.catchUpBytesMax + limits.messageBytesMax);
  if (!value.ok) return value;
  return readDecidedList(value.value, networkId, limits);
}

export function readDecidedList(
  value: unknown,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<DecidedBlock[]> {
  if (!Array.isArray(value)) return reject('schema', 'decided blocks');
  if (value.length > limits.catchUpBlocksMax) return reject('too-large', `${value.length} blocks`);
  const blocks: DecidedBlock[] = [];
  for (const item of value) {
    const decided = readDecided(item, networkId, limits);
    if (!decided.ok) return decided;
    blocks.push(decided.value);
  }
  return accept(blocks);
}
