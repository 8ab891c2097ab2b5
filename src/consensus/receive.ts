/**
 * What arrives: every message is checked for size, form, height and signature before it changes anything, and each
 * rejection is one code. Equivocation becomes evidence. Knows nothing of when a replica moves on.
 */
import { equalBytes, toHex } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { assist, missing } from './assist.ts';
import { statementDigest, verifyCertificate } from './certificate.ts';
import { adoptBlocks } from './decided.ts';
import { leaderOf } from './members.ts';
import { decodeMessage, encodeMessage, type Message, type Proposal, type Vote } from './messages.ts';
import { type ConsensusState, noteHeard, noteProgress, tallyAt } from './state.ts';
import { addVote, earlierStatement, exclusiveStatement, isCertified } from './tally.ts';
import type { Certificate, Evidence } from './types.ts';

/** Codes that only a faulty or hostile sender causes. The others come from loss, delay and repetition. */
const misbehaviours: ReadonlySet<string> = new Set([
  'too-large',
  'malformed',
  'not-canonical',
  'schema',
  'unknown-member',
  'bad-signature',
  'duplicate-signer',
  'no-quorum',
  'bad-certificate',
  'no-certificate',
]);

/** Whether the transport should hold the rejection against the peer that sent the message. */
export function isMisbehaviour(code: string): boolean {
  return misbehaviours.has(code);
}

export function receiveMessage(r: ConsensusState, bytes: Uint8Array): Outcome<void> {
  if (r.phase !== 'running') return reject('not-running');
  const decoded = decodeMessage(bytes, r.networkId, r.limits);
  if (!decoded.ok) return decoded;
  const { attempt, message } = decoded.value;
  if (r.voice === 'retired') return answerRetired(r, message, attempt > 0);
  const outcome = dispatch(r, message, attempt > 0);
  r.changed();
  return outcome;
}

function dispatch(r: ConsensusState, message: Message, again: boolean): Outcome<void> {
  switch (message.type) {
    case 'vote':
      return receiveVote(r, message.vote, again);
    case 'proposal':
      return receiveProposal(r, message.proposal, again);
    case 'certificate':
      return receiveCertificate(r, message.certificate);
    case 'want':
      return receiveWant(r, message.height);
    case 'decided':
      return adoptBlocks(r, message.blocks, false);
  }
}

/** Whoever still repeats itself or asks in a chain that has ended lacks its end. */
function answerRetired(r: ConsensusState, message: Message, again: boolean): Outcome<void> {
  const about = (height: number, asker: number) => {
    assist(r, Math.min(height, r.endHeight), asker, true, () => false);
  };
  if (message.type === 'decided') for (const { block } of message.blocks) noteHeard(r, block.height);
  else if (message.type === 'want') about(message.height, message.height);
  else if (message.type === 'vote' && again) about(message.vote.height, message.vote.member);
  else if (message.type === 'proposal' && again) {
    const { height } = message.proposal.block;
    about(height, leaderOf(r.members, height));
  }
  return reject('already-decided');
}

function verifyVote(r: ConsensusState, vote: Vote): boolean {
  const digest = statementDigest(r.networkId, vote.kind, vote.height, vote.blockHash);
  return r.signatures.verify(digest, vote.signature, r.members.list[vote.member]!.publicKey);
}

/** The height a member has shown to have reached by this vote: finalize says that it has left its height. */
function reachedBy(vote: Vote): number {
  return vote.kind === 'finalize' ? vote.height + 1 : vote.height;
}

function receiveVote(r: ConsensusState, vote: Vote, again: boolean): Outcome<void> {
  const { member, height } = vote;
  if (!r.members.list[member]) return reject('unknown-member', `${member}`);
  if (member === r.me) return reject('own-message');
  const settled = height <= r.tip.height;
  if (settled || height > r.height + r.limits.heightsAheadMax) {
    if (again || reachedBy(vote) > r.progress[member]!) {
      if (!verifyVote(r, vote)) return reject('bad-signature', `member ${member}`);
      noteProgress(r, member, reachedBy(vote));
      if (again && settled) help(r, member, vote);
    }
    return settled ? reject('already-decided') : reject('too-far-ahead', `height ${height}`);
  }
  const tally = r.tallies.get(height);
  const earlier = tally && earlierStatement(tally, vote);
  if (earlier && equalBytes(earlier.blockHash, vote.blockHash)) {
    if (again) help(r, member, vote);
    return reject('duplicate');
  }
  if (!verifyVote(r, vote)) return reject('bad-signature', `member ${member}`);
  noteProgress(r, member, reachedBy(vote));
  if (again) help(r, member, vote);
  if (earlier) {
    accuse(r, vote.kind === 'finalize' ? 'finalize' : 'vote', earlier, vote);
    return reject('equivocation', `member ${member} at height ${height}`);
  }
  const exclusive = tally && exclusiveStatement(tally, vote);
  if (exclusive) accuse(r, 'finalize-and-dummy', exclusive, vote);
  const counted = tallyAt(r, height);
  if (addVote(counted, vote, r.members)) r.journal.undecided(counted);
  return accept(undefined);
}

/** Its sender repeats itself and stands where we have been. */
function help(r: ConsensusState, member: number, vote: Vote): void {
  const { height } = vote;
  const stuck = vote.kind === 'finalize' ? height <= r.tip.height : height < r.height;
  if (!stuck) return;
  const reached = r.progress[member]!;
  assist(r, height, member, true, () => r.progress[member]! > reached);
}

function accuse(r: ConsensusState, kind: Evidence['kind'], first: Vote, second: Vote): void {
  const encode = (vote: Vote) => encodeMessage({ type: 'vote', vote });
  keepEvidence(r, {
    kind,
    member: second.member,
    height: second.height,
    first: encode(first),
    second: encode(second),
  });
}

function keepEvidence(r: ConsensusState, evidence: Evidence): void {
  const { kind, member, height } = evidence;
  if (r.evidence.some((one) => one.kind === kind && one.member === member && one.height === height)) return;
  r.evidence.push(evidence);
  if (r.evidence.length > r.limits.evidenceMax) r.evidence.shift();
  r.application.evidence?.(evidence);
}

function receiveProposal(r: ConsensusState, proposal: Proposal, again: boolean): Outcome<void> {
  const { height } = proposal.block;
  if (height <= r.tip.height) return reject('already-decided');
  if (height > r.height + r.limits.heightsAheadMax) return reject('too-far-ahead', `height ${height}`);
  const name = toHex(proposal.hash);
  const known = r.tallies.get(height)?.proposals;
  if (known?.has(name)) return reject('duplicate');
  if (height < r.height - r.limits.heightsAheadMax && !isAwaited(r, proposal)) {
    return reject('too-far-behind', `height ${height}`);
  }
  const leader = leaderOf(r.members, height);
  const digest = statementDigest(r.networkId, 'proposal', height, proposal.hash);
  if (!r.signatures.verify(digest, proposal.signature, r.members.list[leader]!.publicKey)) {
    return reject('bad-signature', `not by the leader of height ${height}`);
  }
  // Others may repeat a leader's proposal, so only a first sending shows where the leader stands.
  if (!again) noteProgress(r, leader, height);
  const tally = tallyAt(r, height);
  const other = tally.proposals.values().next().value;
  if (other) {
    const encode = (one: Proposal) => encodeMessage({ type: 'proposal', proposal: one });
    keepEvidence(r, {
      kind: 'proposal',
      member: leader,
      height,
      first: encode(other),
      second: encode(proposal),
    });
  }
  if (tally.proposals.size >= r.limits.proposalsPerHeightMax && !isCertified(tally, proposal.hash)) {
    return reject('buffer-full', `proposals of height ${height}`);
  }
  tally.proposals.set(name, proposal);
  if (isCertified(tally, proposal.hash)) r.journal.undecided(tally);
  return accept(undefined);
}

function isAwaited(r: ConsensusState, { block, hash }: Proposal): boolean {
  return missing(r).some((one) => one.height === block.height && equalBytes(one.hash, hash));
}

function receiveCertificate(r: ConsensusState, certificate: Certificate): Outcome<void> {
  const { kind, height } = certificate;
  if (height <= r.tip.height) {
    noteHeard(r, height);
    return reject('already-decided');
  }
  if (height > r.height + r.limits.heightsAheadMax) return reject('too-far-ahead', `height ${height}`);
  const known = r.tallies.get(height);
  if (known?.certificates[kind]) {
    noteHeard(r, height);
    return reject('duplicate');
  }
  const counted = known?.votes[kind];
  const proof = verifyCertificate(certificate, r.networkId, r.members, r.signatures, (signer, signature) => {
    const vote = counted?.get(signer);
    return (
      vote !== undefined &&
      equalBytes(vote.blockHash, certificate.blockHash) &&
      equalBytes(vote.signature, signature)
    );
  });
  if (!proof.ok) return proof;
  noteHeard(r, height);
  const tally = tallyAt(r, height);
  tally.certificates[kind] = certificate;
  r.journal.undecided(tally);
  return accept(undefined);
}

function receiveWant(r: ConsensusState, height: number): Outcome<void> {
  if (height > r.height) return reject('too-far-ahead', `height ${height}`);
  assist(r, height, height, true, () => false);
  return accept(undefined);
}
