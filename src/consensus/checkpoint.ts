/**
 * How a newcomer comes to trust the newest members: from a checkpoint it was given, or from the network's first epoch,
 * each epoch's members certify the next and the state it begins with. Old members who have their stake back could
 * certify another history, so what one starts from must be younger than the time that takes.
 */
import { equalBytes, fromHex, toHex } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { blockHash } from './block.ts';
import { verifyCertificate } from './certificate.ts';
import { decodeEpochEnd, epochDomain, isEpoch, isEpochEnd, membersHash, startAfter } from './epoch-end.ts';
import type { CertifiedStart, EpochRun, EpochStart } from './epoch-types.ts';
import { type ConsensusLimits, defaultLimits } from './limits.ts';
import { memberSet } from './members.ts';
import { secp256k1Signatures } from './signatures.ts';
import type { SignatureScheme } from './types.ts';

/** Names the beginning of an epoch in 64 bytes and a number; a user or a manifest can carry it as text. */
export interface Checkpoint {
  readonly epoch: number;
  /** Hash of the block that ended the epoch before; it covers members and state root. */
  readonly root: Uint8Array;
  /** `membersHash` of the epoch's members. */
  readonly members: Uint8Array;
}

export interface VerifyOptions {
  readonly networkId: Uint8Array;
  readonly limits?: Partial<ConsensusLimits>;
  readonly signatures?: SignatureScheme;
}

export function checkpointOf({ epoch, root, members }: EpochStart): Checkpoint {
  return { epoch, root, members: membersHash(members) };
}

/** `EPOCH:ROOT:MEMBERS`, the hashes in hex. */
export function formatCheckpoint({ epoch, root, members }: Checkpoint): string {
  return `${epoch}:${toHex(root)}:${toHex(members)}`;
}

/** Code: `malformed`. */
export function parseCheckpoint(text: string): Outcome<Checkpoint> {
  const parts = /^(0|[1-9]\d{0,15}):([0-9a-f]{64}):([0-9a-f]{64})$/.exec(text);
  const epoch = Number(parts?.[1]);
  if (!parts || !isEpoch(epoch)) return reject('malformed', 'not EPOCH:ROOT:MEMBERS');
  return accept({ epoch, root: fromHex(parts[2]!), members: fromHex(parts[3]!) });
}

/**
 * What the checkpoint stands for, from the end of the epoch before it as anybody served it: the hash vouches, so no
 * signature is needed. Codes: `wrong-checkpoint`, and those of decoding.
 */
export function openCheckpoint(
  checkpoint: Checkpoint,
  end: EpochRun,
  { networkId, limits }: VerifyOptions,
): Outcome<CertifiedStart> {
  const block = end.blocks[0]?.block;
  if (!block || end.epoch !== checkpoint.epoch - 1) return reject('wrong-checkpoint', 'of another epoch');
  const hash = blockHash(epochDomain(networkId, end.epoch), block);
  if (!equalBytes(hash, checkpoint.root)) return reject('wrong-checkpoint', 'of another block');
  const named = decodeEpochEnd(block.payload, { ...defaultLimits, ...limits });
  if (!named.ok) return named;
  const start = startAfter(named.value, hash);
  const same = start.epoch === checkpoint.epoch && equalBytes(membersHash(start.members), checkpoint.members);
  return same ? accept(start) : reject('wrong-checkpoint', 'of other members');
}

/**
 * Follows the ends of consecutive epochs from one that is trusted, and returns the beginning of the epoch after the
 * last: its members, and the state root that a snapshot must have. Verifies a quorum of signatures for each epoch, so
 * callers with many hand them over in parts, each from the result of the one before. Codes: `epoch-gap`, `not-an-end`,
 * `unlinked`, `no-certificate`, `bad-certificate`, `time-runs-back`, and those of decoding.
 */
export function verifyEpochs(
  trusted: EpochStart | CertifiedStart,
  ends: readonly EpochRun[],
  options: VerifyOptions,
): Outcome<EpochStart | CertifiedStart> {
  let at = trusted;
  for (const end of ends) {
    const next = verifyEnd(at, end, options);
    if (!next.ok) return next;
    if ('timeMs' in at && next.value.timeMs < at.timeMs)
      return reject('time-runs-back', `epoch ${end.epoch}`);
    at = next.value;
  }
  return accept(at);
}

/** The end of `start`'s epoch: its last block, and fillers up to one that its members finalized. */
function verifyEnd(
  start: EpochStart,
  { epoch, blocks }: EpochRun,
  { networkId, limits: some, signatures = secp256k1Signatures }: VerifyOptions,
): Outcome<CertifiedStart> {
  const limits = { ...defaultLimits, ...some };
  if (epoch !== start.epoch) return reject('epoch-gap', `epoch ${epoch} after ${start.epoch - 1}`);
  const last = blocks.at(-1);
  if (!last || !isEpochEnd(blocks[0]!.block.payload)) return reject('not-an-end', `epoch ${epoch}`);
  const named = decodeEpochEnd(blocks[0]!.block.payload, limits);
  if (!named.ok) return named;
  if (named.value.epoch !== epoch) return reject('not-an-end', `of epoch ${named.value.epoch}`);
  const domain = epochDomain(networkId, epoch);
  const hashes = blocks.map(({ block }) => blockHash(domain, block));
  for (const [i, { block }] of blocks.slice(1).entries()) {
    const extends_ =
      block.parentHeight === blocks[i]!.block.height && equalBytes(block.parentHash, hashes[i]!);
    if (!extends_ || block.payload.length > 0) return reject('unlinked', `block ${block.height}`);
  }
  const { certificate } = last;
  if (!certificate) return reject('no-certificate', `epoch ${epoch}`);
  const ofLast =
    certificate.height === last.block.height && equalBytes(certificate.blockHash, hashes.at(-1)!);
  if (certificate.kind !== 'finalize' || !ofLast) return reject('bad-certificate', 'of another block');
  const proof = verifyCertificate(
    certificate,
    domain,
    memberSet(start.members, limits.membersMax),
    signatures,
  );
  if (!proof.ok) return reject('bad-certificate', proof.code);
  return accept(startAfter(named.value, hashes[0]!));
}

/**
 * Whether what one starts from is young enough: the members it names could not have taken back their stake since.
 * `skewMs`: how far its clock may be ahead of ours. Codes: `checkpoint-too-old`, `checkpoint-in-future`.
 */
export function checkAge(
  timeMs: number,
  clock: { readonly nowMs: number; readonly unbondingMs: number; readonly skewMs: number },
): Outcome<void> {
  const ageMs = clock.nowMs - timeMs;
  if (ageMs < -clock.skewMs) return reject('checkpoint-in-future', `by ${-ageMs} ms`);
  if (ageMs >= clock.unbondingMs) {
    return reject('checkpoint-too-old', `${ageMs} ms old, stake is free after ${clock.unbondingMs}`);
  }
  return accept(undefined);
}
