/**
 * The member list and its arithmetic: weights, quorums, leaders. Knows nothing of messages or of time.
 */
import { publicKeyBytes } from '../identity/keys.ts';
import { CodedError } from '../std/outcome.ts';
import type { Member } from './types.ts';

export interface MemberSet {
  readonly list: readonly Member[];
  readonly weight: number;
  /** -1 for a node that is no member. */
  indexOf(nodeId: string): number;
}

/** Throws CodedError `bad-members` on an empty or too long list, a repeated member, or a weight out of range. */
export function memberSet(list: readonly Member[], membersMax: number): MemberSet {
  const bad = (what: string) => new CodedError('bad-members', `member list: ${what}`);
  if (list.length === 0) throw bad('empty');
  if (list.length > membersMax) throw bad(`${list.length} members, at most ${membersMax}`);
  const indices = new Map<string, number>();
  let weight = 0;
  for (const [index, member] of list.entries()) {
    if (!Number.isSafeInteger(member.weight) || member.weight < 1) throw bad(`weight of ${member.nodeId}`);
    if (member.publicKey.length !== publicKeyBytes) throw bad(`public key of ${member.nodeId}`);
    if (indices.has(member.nodeId)) throw bad(`${member.nodeId} is named twice`);
    indices.set(member.nodeId, index);
    weight += member.weight;
  }
  if (!Number.isSafeInteger(3 * weight)) throw bad('weights too large');
  return { list, weight, indexOf: (nodeId) => indices.get(nodeId) ?? -1 };
}

/** More than 2/3 of the weight: two such sets share an honest member while less than 1/3 is hostile. */
export function isQuorum(members: MemberSet, weight: number): boolean {
  return 3 * weight > 2 * members.weight;
}

/** At least 1/3 of the weight: a set of this size that is wholly faulty is more than we tolerate. */
export function includesHonest(members: MemberSet, weight: number): boolean {
  return 3 * weight >= members.weight;
}

/** Round robin: any f + 1 consecutive heights have an honest leader. */
export function leaderOf(members: MemberSet, height: number): number {
  return height % members.list.length;
}

/**
 * How many members may crash or lie, whichever they are, with consensus still safe and live: the largest f such
 * that the f heaviest hold less than 1/3 of the weight. 0 for one to three equal members, 1 for four.
 */
export function toleratedFailures(members: readonly Pick<Member, 'weight'>[]): number {
  const weights = members.map((member) => member.weight).sort((a, b) => b - a);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  let failed = 0;
  let count = 0;
  for (const weight of weights) {
    failed += weight;
    if (3 * failed >= total) break;
    count++;
  }
  return count;
}
