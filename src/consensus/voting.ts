/**
 * What a member says: proposals as leader, votes for valid proposals, votes for the dummy, finalize votes. Each is
 * written to the journal before it is sent or counted. Knows nothing of timers or of how heights are left.
 */
import { toHex } from '../std/bytes.ts';
import { blockHash } from './block.ts';
import { noHash, statementDigest } from './certificate.ts';
import { bestPath, parentPath } from './chain.ts';
import type { VotingRecord } from './journal.ts';
import type { Proposal, Vote } from './messages.ts';
import { type ConsensusState, isLeader, maySpeak, send, tallyAt } from './state.ts';
import { addVote } from './tally.ts';
import type { Block, ProposalContext, VoteKind } from './types.ts';

/** Votes for ⊥ at the current height, unless it already did. Its timer asks for it. */
export function voteDummy(r: ConsensusState): void {
  if (maySpeak(r) && !r.record.dummy && !r.record.finalize)
    cast(r, { ...r.record, dummy: true }, 'dummy', noHash);
}

/** Promises never to vote ⊥ here; called when leaving the height with its block notarized. */
export function voteFinalize(r: ConsensusState, hash: Uint8Array): void {
  if (!maySpeak(r) || r.record.dummy || r.record.finalize) return;
  cast(r, { ...r.record, finalize: hash }, 'finalize', hash);
}

/**
 * Proposes when leading, validates what the leader proposed, and votes for the first valid proposal. The application is
 * asked only when it has taken every payload decided so far, else it would judge by a past that is over.
 */
export function speak(r: ConsensusState): void {
  if (!r.view.active || !maySpeak(r) || r.unapplied > 0) return;
  if (isLeader(r)) propose(r);
  checkProposals(r);
}

function cast(r: ConsensusState, record: VotingRecord, kind: VoteKind, hash: Uint8Array): void {
  r.record = record;
  const vote = signVote(r, kind, record.height, hash);
  const written = r.journal.record(record);
  written.then(
    () => say(r, vote),
    () => {}, // The journal reports its failure itself; the vote is never sent.
  );
}

export function signVote(r: ConsensusState, kind: VoteKind, height: number, hash: Uint8Array): Vote {
  const digest = statementDigest(r.networkId, kind, height, hash);
  return { kind, height, blockHash: hash, member: r.me, signature: r.signatures.sign(digest, r.key!) };
}

function say(r: ConsensusState, vote: Vote): void {
  if (r.phase !== 'running') return;
  countOwn(r, vote);
  send(r, { type: 'vote', vote });
  r.changed();
}

/** Our own vote, once it is durable. */
export function countOwn(r: ConsensusState, vote: Vote): void {
  if (vote.height <= r.tip.height) return;
  const tally = tallyAt(r, vote.height);
  if (addVote(tally, vote, r.members)) r.journal.undecided(tally);
}

function context(r: ConsensusState, ancestors: readonly Proposal[]): ProposalContext {
  const payloads = ancestors.map(({ block }) => block.payload).filter((payload) => payload.length > 0);
  return { height: r.height, undecided: payloads, signal: r.view.abort.signal };
}

function propose(r: ConsensusState): void {
  if (r.record.proposal || r.record.vote) return;
  const path = bestPath(r.tallies, r.tip, r.height);
  if (!path.linked) return;
  const { view } = r;
  if (view.proposing === 'nothing') {
    if (view.fillerDue && path.blocks.length > 0) publish(r, path.blocks, new Uint8Array());
    return;
  }
  if (view.proposing === 'asking') return;
  view.proposing = 'asking';
  const tip = r.tip;
  settle(
    r,
    () => r.application.propose(context(r, path.blocks)),
    undefined,
    (payload) => {
      if (r.view !== view || !maySpeak(r)) return;
      const now = bestPath(r.tallies, r.tip, r.height);
      const same = now.linked && now.blocks.length === path.blocks.length && r.tip === tip;
      const usable =
        payload !== undefined && payload.length > 0 && payload.length <= r.limits.payloadBytesMax;
      // The answer was given for one chain; another one may have been notarized meanwhile.
      view.proposing = same && !usable ? 'nothing' : 'no';
      if (same && usable) publish(r, path.blocks, payload);
      r.changed();
    },
  );
}

function publish(r: ConsensusState, ancestors: readonly Proposal[], payload: Uint8Array): void {
  if (r.record.proposal || r.record.vote) return;
  const parent = ancestors.at(-1);
  const block: Block = {
    height: r.height,
    parentHeight: parent ? parent.block.height : r.tip.height,
    parentHash: parent ? parent.hash : r.tip.hash,
    payload,
  };
  const hash = blockHash(r.networkId, block);
  const digest = statementDigest(r.networkId, 'proposal', block.height, hash);
  const proposal: Proposal = { block, hash, signature: r.signatures.sign(digest, r.key!) };
  r.record = { ...r.record, proposal, vote: hash };
  const vote = signVote(r, 'vote', block.height, hash);
  r.journal.record(r.record).then(
    () => {
      if (r.phase !== 'running' || block.height <= r.tip.height) return;
      tallyAt(r, block.height).proposals.set(toHex(hash), proposal);
      send(r, { type: 'proposal', proposal });
      say(r, vote);
    },
    () => {},
  );
}

function checkProposals(r: ConsensusState): void {
  const { view } = r;
  for (const [name, proposal] of r.tallies.get(r.height)?.proposals ?? []) {
    if (r.record.vote) return;
    const check = view.checks.get(name);
    if (check === 'checking' || check === 'refused') continue;
    const path = parentPath(r.tallies, r.tip, proposal.block);
    if (!path.linked) continue;
    if (check === 'valid') {
      cast(r, { ...r.record, vote: proposal.hash }, 'vote', proposal.hash);
      return;
    }
    const { payload } = proposal.block;
    if (payload.length === 0) {
      view.checks.set(name, 'valid');
      r.changed();
      continue;
    }
    view.checks.set(name, 'checking');
    settle(
      r,
      () => r.application.validate(payload, context(r, path.blocks)),
      false,
      (valid) => {
        if (r.view !== view) return;
        view.checks.set(name, valid ? 'valid' : 'refused');
        r.changed();
      },
    );
  }
}

/** Runs a callback of the application, at once, so that its context is current; one that throws says `otherwise`. */
function settle<T>(r: ConsensusState, ask: () => Promise<T>, otherwise: T, then: (answer: T) => void): void {
  const asked = async () => ask();
  asked()
    .catch(() => otherwise)
    .then((answer) => {
      if (r.phase === 'running') then(answer);
    });
}

/** The application has news: judge again what it refused, and ask again for a payload. */
export function reconsider(r: ConsensusState): void {
  for (const [name, check] of r.view.checks) if (check === 'refused') r.view.checks.delete(name);
  if (r.view.proposing === 'nothing') r.view.proposing = 'no';
}
