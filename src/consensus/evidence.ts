/**
 * Judges evidence of equivocation by itself: anybody who holds the member list can check it, without having been
 * there. An honest member never signs such a pair, not even after a restart.
 */
import { equalBytes } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type StatementKind, statementDigest } from './certificate.ts';
import type { ConsensusLimits } from './limits.ts';
import { leaderOf, type MemberSet } from './members.ts';
import { decodeMessage } from './messages.ts';
import type { Evidence, SignatureScheme } from './types.ts';

export interface Statement {
  readonly kind: StatementKind;
  readonly height: number;
  readonly hash: Uint8Array;
  readonly member: number;
  readonly signature: Uint8Array;
}

/** Codes: `not-evidence` (the statements may stand together), `bad-signature`, `unknown-member`, decoding codes. */
export function verifyEvidence(
  evidence: Evidence,
  networkId: Uint8Array,
  members: MemberSet,
  signatures: SignatureScheme,
  limits: ConsensusLimits,
): Outcome<void> {
  const statements: Statement[] = [];
  for (const bytes of [evidence.first, evidence.second]) {
    const statement = readStatement(bytes, networkId, members, limits);
    if (!statement.ok) return statement;
    const { kind, height, hash, member, signature } = statement.value;
    const publicKey = members.list[member]?.publicKey;
    if (!publicKey) return reject('unknown-member', `${member}`);
    const digest = statementDigest(networkId, kind, height, hash);
    if (!signatures.verify(digest, signature, publicKey)) return reject('bad-signature', `member ${member}`);
    if (member !== evidence.member || height !== evidence.height) return reject('not-evidence', 'of another');
    statements.push(statement.value);
  }
  const [first, second] = statements as [Statement, Statement];
  const kinds = new Set([first.kind, second.kind]);
  const exclusive = kinds.has('finalize') && kinds.has('dummy');
  if (evidence.kind === 'finalize-and-dummy') {
    return exclusive ? accept(undefined) : reject('not-evidence', 'no finalize beside a dummy');
  }
  const same = first.kind === evidence.kind && second.kind === evidence.kind;
  if (!same || equalBytes(first.hash, second.hash)) return reject('not-evidence', 'nothing contradicts');
  return accept(undefined);
}

/** A vote or proposal as a statement of its member. */
export function readStatement(
  bytes: Uint8Array,
  networkId: Uint8Array,
  members: MemberSet,
  limits: ConsensusLimits,
): Outcome<Statement> {
  const decoded = decodeMessage(bytes, networkId, limits);
  if (!decoded.ok) return decoded;
  const { message } = decoded.value;
  if (message.type === 'vote') return accept({ ...message.vote, hash: message.vote.blockHash });
  if (message.type !== 'proposal') return reject('not-evidence', 'no statement of a member');
  const { block, hash, signature } = message.proposal;
  const { height } = block;
  return accept({ kind: 'proposal', height, hash, member: leaderOf(members, height), signature });
}
