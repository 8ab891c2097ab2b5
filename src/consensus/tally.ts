/**
 * What has been said about one height: votes by kind, proposals, and the certificates they make. Counts only verified
 * statements, each member once; a second, different statement is returned as a conflict. Does no checking itself.
 */
import { equalBytes, toHex } from '../std/bytes.ts';
import { makeCertificate } from './certificate.ts';
import { isQuorum, type MemberSet } from './members.ts';
import type { Proposal, Vote } from './messages.ts';
import type { Certificate, VoteKind } from './types.ts';

export interface HeightTally {
  readonly height: number;
  /** By kind, then member: the first statement of each. */
  readonly votes: Readonly<Record<VoteKind, Map<number, Vote>>>;
  /** By block hash, in order of arrival; each signed by the height's leader. */
  readonly proposals: Map<string, Proposal>;
  /** At most one of each kind: two would need more than a third of the weight to lie. */
  readonly certificates: Partial<Record<VoteKind, Certificate>>;
}

export function newTally(height: number): HeightTally {
  return {
    height,
    votes: { vote: new Map(), dummy: new Map(), finalize: new Map() },
    proposals: new Map(),
    certificates: {},
  };
}

/** What the member said before, if that is not this. */
export function earlierStatement(tally: HeightTally, vote: Vote): Vote | undefined {
  return tally.votes[vote.kind].get(vote.member);
}

/** A statement that an honest member cannot have made beside `vote`: finalize and ⊥ at one height. */
export function exclusiveStatement(tally: HeightTally, vote: Vote): Vote | undefined {
  if (vote.kind === 'finalize') return tally.votes.dummy.get(vote.member);
  if (vote.kind === 'dummy') return tally.votes.finalize.get(vote.member);
  return undefined;
}

/** Adds a first statement; true when its kind has a new certificate now. */
export function addVote(tally: HeightTally, vote: Vote, members: MemberSet): boolean {
  tally.votes[vote.kind].set(vote.member, vote);
  if (tally.certificates[vote.kind]) return false;
  const named = toHex(vote.blockHash);
  const same = new Map<number, Uint8Array>();
  let weight = 0;
  for (const [member, other] of tally.votes[vote.kind]) {
    if (toHex(other.blockHash) !== named) continue;
    same.set(member, other.signature);
    weight += members.list[member]!.weight;
  }
  if (!isQuorum(members, weight)) return false;
  tally.certificates[vote.kind] = makeCertificate(vote.kind, tally.height, vote.blockHash, same);
  return true;
}

/** Whether a certificate of this height names the block. */
export function isCertified(tally: HeightTally, hash: Uint8Array): boolean {
  const { vote, finalize } = tally.certificates;
  return [vote, finalize].some((certificate) => certificate && equalBytes(certificate.blockHash, hash));
}

/** Adds the members who have said anything about this height to `into`. */
export function speakers(tally: HeightTally, into: Set<number>): void {
  for (const votes of Object.values(tally.votes)) for (const member of votes.keys()) into.add(member);
}
