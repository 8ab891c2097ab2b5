/**
 * A Simplex replica: orders opaque payloads among members of whom less than a third, by weight, may be faulty.
 * Composes the rules with the journal and hands out the interface of `types.ts`. Owns no clock, network or disk.
 */
import { toHex } from '../std/bytes.ts';
import { genesisHash } from './block.ts';
import type { Tip } from './chain.ts';
import { adoptBlocks, certifiedRun, deliver } from './decided.ts';
import { type JournalContent, openJournal } from './journal.ts';
import { defaultLimits, defaultTiming } from './limits.ts';
import { leaderOf, memberSet, toleratedFailures } from './members.ts';
import { receiveMessage } from './receive.ts';
import { applyRules } from './rules.ts';
import { secp256k1Signatures } from './signatures.ts';
import { type ConsensusState, closeView, fail, haltTimers, newView, tallyAt } from './state.ts';
import type { ConsensusOptions, ConsensusStatus, EndingReplica } from './types.ts';
import { enterHeight } from './view.ts';
import { countOwn, reconsider, signVote } from './voting.ts';

/**
 * Loads what the store holds and returns a replica that begins in the clock's next turn, so that its callbacks find
 * their owner complete. Throws CodedError `bad-members`, or `consensus-store-damaged` when the store holds what this
 * code did not write.
 */
export async function createConsensusReplica(options: ConsensusOptions): Promise<EndingReplica> {
  const limits = { ...defaultLimits, ...options.limits };
  const members = memberSet(options.members, limits.membersMax);
  const me = options.key ? members.indexOf(options.key.nodeId) : -1;
  const journal = openJournal(options.store, options.networkId, limits, (error) => fail(r, error));
  const content = await journal.load();
  const r: ConsensusState = {
    networkId: options.networkId,
    members,
    me,
    key: options.key,
    clock: options.clock,
    limits,
    timing: { ...defaultTiming, ...options.timing },
    signatures: options.signatures ?? secp256k1Signatures,
    application: options.application,
    journal,
    transmit: options.broadcast,
    changed: onceAtATime(() => {
      if (r.phase === 'running' && r.voice !== 'retired') applyRules(r);
    }),
    tallies: new Map(),
    decided: [],
    tip: { height: 0, hash: options.root ?? genesisHash },
    height: 1,
    record: content.record,
    view: newView(),
    awake: false,
    progress: members.list.map(() => 0),
    heard: new Map(),
    assists: new Map(),
    withheld: new Map(),
    catchUp: undefined,
    attempts: 0,
    evidence: [],
    deliveries: [],
    unapplied: 0,
    delivering: false,
    appliedHeight: options.appliedHeight ?? content.appliedHeight,
    phase: 'opened',
    voice: options.silent ? 'silent' : 'votes',
    endHeight: 0,
  };
  restore(r, content);
  r.clock.setTimer(0, () => begin(r));
  return replicaOf(r);
}

function begin(r: ConsensusState): void {
  if (r.phase !== 'opened') return;
  r.phase = 'running';
  void deliver(r);
  r.changed();
}

function replicaOf(r: ConsensusState): EndingReplica {
  return {
    receive: (_from, message) => receiveMessage(r, message),
    wake() {
      r.awake = true;
      reconsider(r);
      r.changed();
    },
    status: () => statusOf(r),
    decidedSince: (height) =>
      certifiedRun(r.decided, height, {
        blocks: r.limits.catchUpBlocksMax,
        bytes: r.limits.catchUpBytesMax,
      }),
    adopt(blocks, { jump = false } = {}) {
      if (r.phase !== 'running') return { ok: false, code: 'not-running', detail: '' };
      const outcome = adoptBlocks(r, blocks, jump);
      r.changed();
      return outcome;
    },
    evidence: () => r.evidence.slice(),
    async stop() {
      if (r.phase !== 'failed') r.phase = 'stopped';
      haltTimers(r);
      await r.journal.settled();
    },
    retire(height) {
      r.voice = 'retired';
      r.endHeight = height;
      closeView(r);
      r.view = newView();
      r.catchUp?.cancel();
      r.catchUp = undefined;
    },
    applying: () => r.unapplied > 0,
  };
}

/** Changes that happen while the rules run make them run once more, never inside themselves. */
function onceAtATime(run: () => void): () => void {
  let running = false;
  let again = false;
  return () => {
    again = true;
    if (running) return;
    running = true;
    try {
      while (again) {
        again = false;
        run();
      }
    } finally {
      running = false;
    }
  };
}

/** Rebuilds the state at the last write: decided chain, undecided certificates, and our own last votes. */
function restore(r: ConsensusState, content: JournalContent): void {
  const certified = content.decided.findLastIndex(({ certificate }) => certificate !== undefined);
  r.decided.push(...content.decided.slice(0, certified + 1));
  const last = r.decided.at(-1);
  if (last) r.tip = { height: last.block.height, hash: last.hash } satisfies Tip;
  for (const { height, proposal, certificates } of content.undecided) {
    if (height <= r.tip.height) continue;
    const tally = tallyAt(r, height);
    if (proposal) tally.proposals.set(toHex(proposal.hash), proposal);
    for (const certificate of certificates) tally.certificates[certificate.kind] = certificate;
  }
  enterHeight(r, r.tip.height + 1);
  // Up to the height where we last spoke, certificates alone lead on: everything we had to say there is said.
  while (r.height < content.record.height && canLeave(r)) enterHeight(r, r.height + 1);
  r.record = content.record.height >= r.height ? content.record : { height: r.height };
  restoreVotes(r);
  r.deliveries.push(
    ...r.decided.filter(({ block }) => block.height > r.appliedHeight && block.payload.length > 0),
  );
  r.unapplied = r.deliveries.length;
}

function canLeave(r: ConsensusState): boolean {
  const certificates = r.tallies.get(r.height)?.certificates;
  return certificates?.vote !== undefined || certificates?.dummy !== undefined;
}

/** The record was durable before a crash, the sending perhaps not: count and later repeat it. */
function restoreVotes(r: ConsensusState): void {
  const { height, vote, dummy, finalize, proposal } = r.record;
  if (r.me < 0 || height <= r.tip.height) return;
  if (proposal) tallyAt(r, height).proposals.set(toHex(proposal.hash), proposal);
  if (vote) countOwn(r, signVote(r, 'vote', height, vote));
  if (dummy) countOwn(r, signVote(r, 'dummy', height, new Uint8Array(32)));
  if (finalize) countOwn(r, signVote(r, 'finalize', height, finalize));
}

function statusOf(r: ConsensusState): ConsensusStatus {
  return {
    height: r.height,
    decidedHeight: r.tip.height,
    active: r.view.active,
    leader: r.members.list[leaderOf(r.members, r.height)]!.nodeId,
    member: r.me >= 0,
    members: r.members.list.length,
    toleratedFailures: toleratedFailures(r.members.list),
    failed: r.phase === 'failed',
  };
}
