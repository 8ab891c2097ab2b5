/**
 * Audits as one node takes part in them: it provides evidence of its own drawn proofs, performs the duties that the beacon
 * drew for it within its budget, and tells the ledger what it found, first sealed, then open. It pays and punishes nobody.
 */
import type { AuditRules } from '../audit/audit-interval.ts';
import type { AuditBudget } from '../audit/budget.ts';
import type { TrainingClaim } from '../audit/claim.ts';
import type { DutyOptions, DutyResult } from '../audit/duty.ts';
import {
  createEvidenceShelf,
  type EvidenceShelf,
  type EvidenceSource,
  fetchEvidence,
  replicaSource,
  serveEvidence,
} from '../audit/evidence.ts';
import { type BytesSource, createBytesFetch, serveEvidenceBytes } from '../audit/evidence-bytes.ts';
import { provideEvidence, type StageWork } from '../audit/provide.ts';
import type { ReExecutor } from '../audit/re-execute.ts';
import { toleranceMax } from '../audit/tolerance.ts';
import type { ReplicaInfo, StageReplica } from '../diloco/replica.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { nextBlock, pendingAuditors, phaseOf } from '../ledger/duties.ts';
import type { DutyRow } from '../ledger/tables.ts';
import { auditCommit } from '../ledger/transactions/audit-commit.ts';
import { auditReveal } from '../ledger/transactions/audit-reveal.ts';
import { type RevealBody, verdictCommitment } from '../ledger/verdict.ts';
import { cutStages } from '../model/stage-cut.ts';
import type { Transport } from '../net/transport.ts';
import { stageFlatLength } from '../optim/segments.ts';
import { must } from '../std/assert.ts';
import type { Clock } from '../std/clock.ts';
import { inTurn } from '../std/in-turn.ts';
import type { Random } from '../std/random.ts';
import type { Store } from '../std/store.ts';
import type { Claims } from './claims.ts';
import type { EventSink } from './events.ts';
import { type KeptEvidence, openKeptEvidence } from './kept-evidence.ts';
import type { LedgerNode } from './ledger-node.ts';
import type { NetworkManifest } from './network.ts';
import { planHash } from './plan.ts';
import { claimOfDuty } from './proof-lookup.ts';
import { auditName, openReveals, type Reveals } from './reveals.ts';

/** Where re-execution happens: a wasm engine of its own, and what it has cost so far. */
export interface Auditor {
  readonly executor: Pick<ReExecutor, 'execute' | 'nextFeedback'>;
  readonly cpuMs: () => Promise<number>;
  readonly budget: AuditBudget;
}

export interface AuditingOptions {
  readonly network: NetworkManifest;
  readonly nodeId: string;
  readonly ledger: LedgerNode;
  readonly replica: StageReplica;
  readonly info: ReplicaInfo;
  /** What this node keeps of its own steps, where it holds one stage of several. */
  readonly work: StageWork | undefined;
  /** Own claims that the ledger has not taken, and the round in which the node stands. */
  readonly claims: () => Pick<Claims, 'due'>;
  readonly round: () => number;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly store: Store;
  readonly events: EventSink;
  /** `performDuty`, unless somebody would rather not. */
  readonly audit: (duty: DutyOptions) => Promise<DutyResult | undefined>;
  /** Absent: this node serves evidence and performs no duty. */
  readonly auditor?: Auditor;
}

/** Evidence of this node, and as much again of those it audits: what these have must not push out its own. */
const shelfBytesMax = 512 * 1024 * 1024;
/** Share of the blocks for commitments that is left when an auditor stops looking for evidence, to say that there is none. */
const committingShare = 1 / 3;

interface Auditing {
  readonly options: AuditingOptions;
  /** Own evidence, until the verdicts. */
  own: EvidenceShelf;
  /** That of others, from whom it can be had, too. */
  readonly fetched: EvidenceShelf;
  /** Own evidence from before a restart. */
  readonly kept: KeptEvidence;
  readonly startedMs: number;
  readonly reveals: Reveals;
  readonly abort: AbortController;
  /** Duties that this node has provided for, or that it works on. */
  readonly provided: Set<string>;
  readonly underWay: Set<string>;
  /** Of provisions from the replica. */
  readonly providing: ReturnType<typeof inTurn>;
  /** Of duties that this node works on: aborts when it is time to commit. */
  readonly due: Map<string, AbortController>;
}

export async function startAuditing(options: AuditingOptions): Promise<{ close(): Promise<void> }> {
  const { ledger, transport, replica } = options;
  const a: Auditing = {
    options,
    own: createEvidenceShelf({ bytesMax: shelfBytesMax }),
    fetched: createEvidenceShelf({ bytesMax: shelfBytesMax }),
    kept: await openKeptEvidence(options.store),
    startedMs: options.clock.nowMs(),
    reveals: await openReveals(options.store),
    abort: new AbortController(),
    provided: new Set(),
    underWay: new Set(),
    providing: inTurn(),
    due: new Map(),
  };
  const stops = [
    serveEvidence(transport, [ownSource(a), a.fetched, a.kept, replicaSource(replica)]),
    serveEvidenceBytes(transport, [shelvedBytes(a), (hash) => a.kept.bytes(hash), ...rowSources(a)]),
  ];
  const unlisten = ledger.onBlock(() => lookAtDuties(a));
  lookAtDuties(a);
  return {
    close: async () => {
      a.abort.abort(new Error('the node stops'));
      for (const stop of stops) stop();
      unlisten();
      await keepForRestart(a).catch((error) => {
        warn(a, 'evidence-not-kept', String(error));
      });
    },
  };
}

/** Who is asked for evidence after a restart must have it: the rounds of open duties, of claims on their way, and before. */
async function keepForRestart(a: Auditing): Promise<void> {
  const { ledger, nodeId, replica, work, claims, round } = a.options;
  const state = ledger.state();
  const rounds = new Set<number>();
  for (const key of state.keys('duty'))
    if (state.get('duty', key)!.prover === nodeId) rounds.add((await claimOfDuty(ledger, key))?.round ?? -1);
  if (claims().due > 0) for (const before of [1, 2]) rounds.add(round() - before);
  const needed = [...rounds].flatMap((one) => [one, one - 1]).filter((one) => one >= 0);
  const own = { shelf: a.own, replica, work, rounds: [...new Set(needed)] };
  const isAll = await a.kept.keep(own);
  if (!isAll) warn(a, 'evidence-not-kept', 'there is more of it than is written when a node stops');
}

function warn({ options }: Auditing, code: string, detail: string): void {
  options.events({ type: 'warning', code, detail });
}

/** What the newest block asks of this node. */
function lookAtDuties(a: Auditing): void {
  const { ledger, nodeId } = a.options;
  const state = ledger.state();
  const next = nextBlock(state);
  const open = new Set(state.keys('duty'));
  for (const name of a.provided) if (!open.has(name.split('/')[0]!)) a.provided.delete(name);
  forgetKept(a, open);
  if (a.provided.size === 0 && a.own.bytes > 0) a.own = createEvidenceShelf({ bytesMax: shelfBytesMax });
  a.reveals.keepOnly(open);
  for (const [key, due] of a.due) if (!mayWait(a, key)) due.abort();
  for (const key of open) {
    const duty = state.get('duty', key)!;
    const phase = phaseOf(duty, next, ledger.constants.policy);
    if (duty.prover === nodeId) provideInTime(a, key, duty);
    if (phase !== 'committing' && phase !== 'revealing') continue;
    if (!pendingAuditors(duty).includes(nodeId)) continue;
    const committed = duty.commitments.some(([node]) => node === nodeId);
    const known = a.reveals.get(auditName(key, duty.interval));
    // What waits already is refused; so it is sent with every block until it is in one.
    if (committed && phase === 'revealing' && known) ledger.send(auditReveal, known);
    if (committed || phase !== 'committing') continue;
    if (known) commit(a, known);
    else if (a.options.auditor) inBackground(a, `audit ${key}`, a.underWay, () => perform(a, key, duty));
  }
}

/** Evidence of before the restart, once no verdict is awaited and no claim of then can be taken any more. */
function forgetKept({ options, kept, startedMs }: Auditing, open: ReadonlySet<string>): void {
  const { ledger, nodeId, clock } = options;
  if (kept.isEmpty || clock.nowMs() - startedMs < ledger.constants.policy.proofAgeMsMax) return;
  const isProver = [...open].some((key) => ledger.state().get('duty', key)!.prover === nodeId);
  if (!isProver) kept.forget().catch(() => {});
}

/** Whether blocks and time in which auditors of this duty commit leave room to look for evidence. */
function mayWait({ options }: Auditing, key: string): boolean {
  const { ledger } = options;
  const { auditBlocks, auditMsMin } = ledger.constants.policy;
  const { number, timeMs } = nextBlock(ledger.state());
  const duty = ledger.state().get('duty', key);
  if (!duty) return false;
  const { dueAt, dueMs } = duty;
  return number < dueAt - committingShare * auditBlocks || timeMs < dueMs - committingShare * auditMsMin;
}

/** One piece of work for each duty at a time; what fails is told, and tried again at the next block. */
function inBackground(a: Auditing, name: string, busy: Set<string>, work: () => Promise<boolean>): void {
  if (busy.has(name)) return;
  busy.add(name);
  work().then(
    (isDone) => {
      if (!isDone) busy.delete(name);
    },
    (error) => {
      busy.delete(name);
      if (a.abort.signal.aborted) return;
      a.options.events({ type: 'warning', code: 'audit-failed', detail: `${name.slice(0, 24)}: ${error}` });
    },
  );
}

/** Intervals of a proof whose audit is certain that are shelved before one of them is drawn. */
const earlyIntervalsMax = 2;

/** The replica forgets a round sooner than a duty that waits for room among the audits. */
function provideInTime(a: Auditing, key: string, duty: DutyRow): void {
  const isDrawn = duty.dueAt > 0;
  if (!isDrawn && (!duty.first || duty.intervals > earlyIntervalsMax)) return;
  const intervals = isDrawn ? [duty.interval] : Array.from({ length: duty.intervals }, (_, i) => i);
  for (const interval of intervals)
    inBackground(a, auditName(key, interval), a.provided, () => provide(a, key, interval));
}

async function provide(a: Auditing, key: string, interval: number): Promise<boolean> {
  const { ledger, replica, dataset, work } = a.options;
  const claim = await claimOfDuty(ledger, key);
  if (!claim) return false;
  const rules = rulesOf(a, claim);
  // Of before a restart the replica knows nothing.
  if (await a.kept.index(claim.states[interval + 1]!)) return true;
  const own = { replica, work, shelf: a.own, turn: a.providing };
  const done = await provideEvidence({ ...own, claim, interval, rules, dataset });
  if (!done.ok) warn(a, done.code, `evidence of round ${claim.round}: ${done.detail}`);
  return true;
}

async function perform(a: Auditing, key: string, duty: DutyRow): Promise<boolean> {
  const due = new AbortController();
  a.due.set(key, due);
  if (!mayWait(a, key)) due.abort();
  try {
    return await performBefore(a, key, duty, due.signal);
  } finally {
    a.due.delete(key);
  }
}

async function performBefore(a: Auditing, key: string, duty: DutyRow, due: AbortSignal): Promise<boolean> {
  const { network, nodeId, ledger, clock, dataset, auditor } = a.options;
  const claim = await claimOfDuty(ledger, key);
  if (!claim || !auditor) return false;
  const from = evidenceFrom(a, claim, due);
  const result = await a.options.audit({
    networkId: network.networkId,
    auditor: nodeId,
    duty: key,
    salt: saltOf(a.options.random),
    clock,
    ...auditor,
    isAwaited: duty.contribution !== null,
    due,
    signal: a.abort.signal,
    claim,
    interval: duty.interval,
    rules: rulesOf(a, claim),
    dataset,
    fetch: (wanted) => fetchEvidence(from, wanted),
    fetchBytes: createBytesFetch({ ...from, local: rowSources(a) }),
  });
  if (!result) return false;
  await a.reveals.keep(auditName(key, duty.interval), result.reveal);
  const { code, detail } = result.finding;
  const { round, nodeId: prover } = claim;
  a.options.events({ type: 'audit', prover, round, interval: duty.interval, code, detail });
  commit(a, result.reveal);
  return false;
}

function commit({ options }: Auditing, reveal: RevealBody): void {
  const { networkId } = options.network;
  const commitment = verdictCommitment(networkId, options.nodeId, reveal);
  options.ledger.send(auditCommit, { duty: reveal.duty, commitment });
}

function evidenceFrom(a: Auditing, { nodeId: prover, stage }: TrainingClaim, due: AbortSignal) {
  const { transport, replica, network, info } = a.options;
  const others = transport.peers().filter((peer) => peer !== prover);
  return {
    transport,
    shelf: a.fetched,
    // Of another stage it knows no state.
    local: stage === info.stage.index ? [replicaSource(replica)] : [],
    peers: prover === a.options.nodeId ? others : [prover, ...others],
    plan: planHash(network, stage),
    flatLength: flatLengthOf(network, stage),
    signal: AbortSignal.any([a.abort.signal, due]),
  };
}

/** What is on the shelf of the moment: a new one begins when all verdicts are there. */
function ownSource(a: Auditing): EvidenceSource {
  return {
    index: (hash) => a.own.index(hash),
    leaf: (hash, index) => a.own.leaf(hash, index),
  };
}

function shelvedBytes(a: Auditing): BytesSource {
  return async (hash) => a.own.bytesOf(hash) ?? a.fetched.bytesOf(hash);
}

/** What this node keeps of its own steps: rows that the prover's neighbour got or sent, or its own. */
function rowSources({ options }: Auditing): BytesSource[] {
  const { work } = options;
  return work ? [(hash) => work.rows(hash)] : [];
}

function flatLengthOf({ model, training }: NetworkManifest, stage: number): number {
  return stageFlatLength(model, must(cutStages(model, training.stages)[stage], 'a stage of the model'));
}

function rulesOf({ options }: Auditing, { stage }: TrainingClaim): AuditRules {
  const { network } = options;
  const { training, model, networkId } = network;
  const { intervalSteps } = network.ledger;
  const { stages, batch, sequence, clip, activations: codec } = training;
  const rowElements = batch * sequence * model.width;
  return {
    ...training,
    intervalSteps,
    flatLength: flatLengthOf(network, stage),
    tolerance: toleranceMax,
    pipeline: stages === 1 ? null : { networkId, stages, codec, rowElements, clip },
  };
}

function saltOf(random: Random): Uint8Array {
  const words = Uint32Array.from({ length: 8 }, () => random.uint32());
  return new Uint8Array(words.buffer);
}
