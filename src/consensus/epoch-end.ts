/**
 * The block that ends an epoch: its payload names the next members and the application's state, so the members of the
 * ending epoch certify both, and whoever trusts them needs nothing else. Also what keeps epochs apart: every signature
 * of an epoch covers the epoch's own domain. Stateless.
 */
import { nodeIdOf, publicKeyBytes } from '../identity/keys.ts';
import { concatBytes, equalBytes } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';
import type { CertifiedStart, EpochStart, NextEpoch } from './epoch-types.ts';
import type { ConsensusLimits } from './limits.ts';
import { memberSet } from './members.ts';
import type { Member } from './types.ts';

const domainTag = 'neuroshard/consensus/epoch/1';
const membersTag = 'neuroshard/consensus/members/1';
const endTag = 'neuroshard/consensus/epoch-end/1';

/** How every payload begins that ends an epoch, and no other: a canonical array of five whose first item is the tag. */
const endPrefix = concatBytes(new Uint8Array([0x85]), encodeCanonical(endTag));

/** 32 bytes, in the place of the network's id in all that is hashed and signed in the epoch. */
export function epochDomain(networkId: Uint8Array, epoch: number): Uint8Array {
  return taggedHash(domainTag, encodeCanonical([networkId, epoch]));
}

/** 32 bytes that name a member list, weights and order included. */
export function membersHash(members: readonly Member[]): Uint8Array {
  return taggedHash(membersTag, encodeCanonical(membersBody(members)));
}

export function isEpoch(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

export function isEpochEnd(payload: Uint8Array): boolean {
  return payload.length > endPrefix.length && equalBytes(payload.subarray(0, endPrefix.length), endPrefix);
}

/** The payload that ends `epoch`. Throws CodedError `bad-members` when the list is none, or too long to be written. */
export function encodeEpochEnd(epoch: number, next: NextEpoch, limits: ConsensusLimits): Uint8Array {
  memberSet(next.members, limits.membersMax);
  const { stateRoot, timeMs, members } = next;
  const payload = encodeCanonical([endTag, epoch, stateRoot, timeMs, membersBody(members)]);
  if (payload.length > limits.payloadBytesMax)
    throw new CodedError('bad-members', 'member list: too many bytes');
  return payload;
}

/** Codes: `schema` and those of decoding. */
export function decodeEpochEnd(
  payload: Uint8Array,
  limits: ConsensusLimits,
): Outcome<NextEpoch & { readonly epoch: number }> {
  const decoded = decodeCanonical(payload, limits.payloadBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 5) return reject('schema', 'epoch end');
  const [tag, epoch, stateRoot, timeMs, list] = decoded.value as unknown[];
  if (tag !== endTag || !isEpoch(epoch)) return reject('schema', 'epoch end');
  if (!(stateRoot instanceof Uint8Array) || stateRoot.length !== 32) return reject('schema', 'state root');
  if (typeof timeMs !== 'number' || !Number.isSafeInteger(timeMs) || timeMs < 0)
    return reject('schema', 'time');
  const members = readMembers(list, limits);
  return members.ok ? accept({ epoch, stateRoot, timeMs, members: members.value }) : members;
}

function membersBody(members: readonly Member[]): Canonical {
  return members.map(({ publicKey, weight }) => [publicKey, weight]);
}

/** A list that `memberSet` takes; `schema` otherwise. */
function readMembers(value: unknown, limits: ConsensusLimits): Outcome<Member[]> {
  if (!Array.isArray(value) || value.length > limits.membersMax) return reject('schema', 'members');
  const members: Member[] = [];
  for (const item of value) {
    if (!Array.isArray(item) || item.length !== 2) return reject('schema', 'member');
    const [publicKey, weight] = item as unknown[];
    if (!(publicKey instanceof Uint8Array) || publicKey.length !== publicKeyBytes)
      return reject('schema', 'member key');
    if (typeof weight !== 'number') return reject('schema', 'member weight');
    members.push({ nodeId: nodeIdOf(publicKey), publicKey, weight });
  }
  try {
    memberSet(members, limits.membersMax);
  } catch (error) {
    return reject('schema', (error as Error).message);
  }
  return accept(members);
}

/** The epoch that begins where a block with this payload, certified, ended the one before. */
export function startAfter(end: NextEpoch & { readonly epoch: number }, endHash: Uint8Array): CertifiedStart {
  const { epoch, members, stateRoot, timeMs } = end;
  return { epoch: epoch + 1, members, root: endHash, stateRoot, timeMs };
}

export function encodeStart({ epoch, members, root }: EpochStart): Uint8Array {
  return encodeCanonical([epoch, root, membersBody(members)]);
}

/** Codes: `schema` and those of decoding. */
export function decodeStart(bytes: Uint8Array, limits: ConsensusLimits): Outcome<EpochStart> {
  const decoded = decodeCanonical(bytes, limits.payloadBytesMax);
  if (!decoded.ok) return decoded;
  if (!Array.isArray(decoded.value) || decoded.value.length !== 3) return reject('schema', 'epoch start');
  const [epoch, root, list] = decoded.value as unknown[];
  if (!isEpoch(epoch)) return reject('schema', 'epoch');
  if (!(root instanceof Uint8Array) || root.length !== 32) return reject('schema', 'root');
  const members = readMembers(list, limits);
  return members.ok ? accept({ epoch, members: members.value, root }) : members;
}
