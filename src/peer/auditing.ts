/**
 * Audits as one node takes part in them: it provides evidence of its own drawn proofs, performs the duties that the beacon
 * drew for it within its budget, and tells the ledger what it found, first sealed, then open. It pays and punishes nobody.
 */
import type { AuditRules } from '../audit/audit-interval.ts';
import type { AuditBudget } from '../audit/budget.ts';
import type { TrainingClaim } from '../audit/claim.ts';
import type { DutyOptions, DutyResult } from '../audit/duty.ts';
import { createEvidenceShelf, fetchEvidence, replicaSource, serveEvidence } from '../audit/evidence.ts';
import { provideEvidence } from '../audit/provide.ts';
import type { ReExecutor } from '../audit/re-execute.ts';
import { toleranceMax } from '../audit/tolerance.ts';
import type { ReplicaInfo, StageReplica } from '../diloco/replica.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { pendingAuditors, phaseOf } from '../ledger/duties.ts';
import type { DutyRow } from '../ledger/tables.ts';
import { auditCommit } from '../ledger/transactions/audit-commit.ts';
import { auditReveal } from '../ledger/transactions/audit-reveal.ts';
import { type RevealBody, verdictCommitment } from '../ledger/verdict.ts';
import type { Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import type { Random } from '../std/random.ts';
import type { Store } from '../std/store.ts';
import type { EventSink } from './events.ts';
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

/** Evidence of this node and of those it audits. */
const shelfBytesMax = 512 * 1024 * 1024;
/** How long an auditor looks for evidence before it says that there is none. */
const evidenceWaitMs = 30_000;

interface Auditing {
  readonly options: AuditingOptions;
  readonly shelf: ReturnType<typeof createEvidenceShelf>;
  readonly reveals: Reveals;
  readonly abort: AbortController;
  /** Duties that this node has provided for, or that it works on. */
  readonly provided: Set<string>;
  readonly underWay: Set<string>;
}

export async function startAuditing(options: AuditingOptions): Promise<{ close(): void }> {
  const { ledger, transport, replica } = options;
  const a: Auditing = {
    options,
    shelf: createEvidenceShelf({ bytesMax: shelfBytesMax }),
    reveals: await openReveals(options.store),
    abort: new AbortController(),
    provided: new Set(),
    underWay: new Set(),
  };
  const unserve = serveEvidence(transport, [a.shelf, replicaSource(replica)]);
  const unlisten = ledger.onBlock(() => lookAtDuties(a));
  lookAtDuties(a);
  return {
    close: () => {
      a.abort.abort(new Error('the node stops'));
      unserve();
      unlisten();
    },
  };
}

/** What the newest block asks of this node. */
function lookAtDuties(a: Auditing): void {
  const { ledger, nodeId } = a.options;
  const state = ledger.state();
  const number = ledger.head().number + 1;
  const open = new Set(state.keys('duty'));
  for (const name of a.provided) if (!open.has(name.split('/')[0]!)) a.provided.delete(name);
  a.reveals.keepOnly(open);
  for (const key of open) {
    const duty = state.get('duty', key)!;
    const phase = phaseOf(duty, number, ledger.constants.policy);
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
  const { ledger, replica, dataset } = a.options;
  const claim = await claimOfDuty(ledger, key);
  if (!claim) return false;
  const done = await provideEvidence({
    replica,
    shelf: a.shelf,
    claim,
    interval,
    rules: rulesOf(a),
    dataset,
  });
  if (!done.ok)
    a.options.events({
      type: 'warning',
      code: done.code,
      detail: `evidence of round ${claim.round}: ${done.detail}`,
    });
  return true;
}

async function perform(a: Auditing, key: string, duty: DutyRow): Promise<boolean> {
  const { network, nodeId, ledger, clock, dataset, auditor } = a.options;
  const claim = await claimOfDuty(ledger, key);
  if (!claim || !auditor) return false;
  const salt = saltOf(a.options.random);
  const result = await a.options.audit({
    networkId: network.networkId,
    auditor: nodeId,
    duty: key,
    salt,
    clock,
    ...auditor,
    untilMs: clock.nowMs() + evidenceWaitMs,
    signal: a.abort.signal,
    claim,
    interval: duty.interval,
    rules: rulesOf(a),
    dataset,
    fetch: (wanted) => fetchEvidence({ ...evidenceFrom(a, claim) }, wanted),
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

function evidenceFrom(a: Auditing, { nodeId: prover }: TrainingClaim) {
  const { transport, replica, network, info } = a.options;
  const others = transport.peers().filter((peer) => peer !== prover);
  return {
    transport,
    shelf: a.shelf,
    local: [replicaSource(replica)],
    peers: prover === a.options.nodeId ? others : [prover, ...others],
    plan: planHash(network, info.stage.index),
    flatLength: info.flatLength,
    signal: a.abort.signal,
  };
}

function rulesOf({ options }: Auditing): AuditRules {
  const { network, info } = options;
  const { intervalSteps } = network.ledger;
  return { ...network.training, intervalSteps, flatLength: info.flatLength, tolerance: toleranceMax };
}

function saltOf(random: Random): Uint8Array {
  const words = Uint32Array.from({ length: 8 }, () => random.uint32());
  return new Uint8Array(words.buffer);
}
