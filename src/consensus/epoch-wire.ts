/**
 * What travels between nodes whose epochs may differ: an envelope that says which epoch a message belongs to, runs of
 * decided blocks, and the position from which somebody asks for them. Checks form and size only.
 */
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { decidedBody, readDecidedList } from './block.ts';
import { epochDomain, isEpoch } from './epoch-end.ts';
import type { EpochRun, Position } from './epoch-types.ts';
import type { ConsensusLimits } from './limits.ts';

/** The body of an answer to a peer that was away. */
export function encodeRun({ epoch, blocks }: EpochRun): Uint8Array {
  return encodeCanonical([epoch, blocks.map(decidedBody)]);
}

/** Checks form and bounds only; `adopt` and `verifyEpochs` check links and certificates. */
export function decodeRun(
  bytes: Uint8Array,
  networkId: Uint8Array,
  limits: ConsensusLimits,
): Outcome<EpochRun> {
  const decoded = decodeCanonical(bytes, limits.catchUpBytesMax + limits.messageBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 2) return reject('schema', 'run');
  const [epoch, list] = decoded.value as unknown[];
  if (!isEpoch(epoch)) return reject('schema', 'epoch');
  const blocks = readDecidedList(list, epochDomain(networkId, epoch), limits);
  return blocks.ok ? accept({ epoch, blocks: blocks.value }) : blocks;
}

/** A message of an epoch's replica, with the epoch that it belongs to. */
export function encodeEnvelope(epoch: number, message: Uint8Array): Uint8Array {
  return encodeCanonical([epoch, message]);
}

/** Most bytes that an envelope adds. */
export const envelopeBytes = 16;

export function decodeEnvelope(
  bytes: Uint8Array,
  limits: ConsensusLimits,
): Outcome<{ readonly epoch: number; readonly message: Uint8Array }> {
  const decoded = decodeCanonical(bytes, limits.messageBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 2) return reject('schema', 'envelope');
  const [epoch, message] = decoded.value as unknown[];
  if (!isEpoch(epoch) || !(message instanceof Uint8Array)) return reject('schema', 'envelope');
  return accept({ epoch, message });
}

/** The body of a request for what was decided after it. */
export function encodePosition({ epoch, height }: Position): Uint8Array {
  return encodeCanonical([epoch, height]);
}

export function decodePosition(bytes: Uint8Array): Outcome<Position> {
  const decoded = decodeCanonical(bytes, 64);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 2) return reject('schema', 'position');
  const [epoch, height] = decoded.value as unknown[];
  return isEpoch(epoch) && isEpoch(height) ? accept({ epoch, height }) : reject('schema', 'position');
}
