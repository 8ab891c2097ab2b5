/**
 * The life of an audit: a duty is noted with the proof, drawn two blocks later, committed to and revealed by its auditors,
 * and settled, or handed to a larger committee. Runs at the end of every block. What auditors find is theirs to say; here
 * is only what follows from it. Source: docs/proofs.md, Audits.
 */
import { must } from '../std/assert.ts';
import { type Candidate, drawAuditors, drawAudits, drawInterval } from './audit-draw.ts';
import type { Draft, LedgerView } from './draft.ts';
import { chainOf, credit, shareOf } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { BlockContext } from './rules.ts';
import { lastTier, rule } from './ruling.ts';
import { convict, isConvicted, penalize } from './slash.ts';
import type { Amount, DutyRow } from './tables.ts';
import { auditRate, vest } from './vesting.ts';

/** Blocks between what is noted and its draw. */
export const drawDelayBlocks = 2;

export interface NewDuty {
  /** `proofKey`. */
  readonly key: string;
  readonly prover: string;
  /** Number of the proof among the prover's, from 1. */
  readonly proof: number;
  readonly first: boolean;
  readonly intervals: number;
  readonly reward: Amount;
  /** Blob hash of a contribution that enters its round only when this audit has ended. */
  readonly contribution: Uint8Array | null;
}

/** Holds a new proof's reward until the beacon, and auditors if they are drawn, have spoken. */
export function noteDuty(draft: Draft, { number }: BlockContext, { key, ...duty }: NewDuty): void {
  draft.put('duty', key, {
    ...duty,
    drawAt: number + drawDelayBlocks,
    // As one that was drawn before: it waits for room, and is never passed over.
    interval: duty.contribution === null ? -1 : 0,
    auditors: [],
    tier: 0,
    dueAt: 0,
    dueMs: 0,
    commitments: [],
    reveals: [],
  });
}

/** Which part of an audit a block falls into. */
export type DutyPhase = 'awaiting-draw' | 'committing' | 'revealing' | 'over';

/** Auditors from whom a verdict is still awaited. */
export function pendingAuditors({ auditors, reveals }: DutyRow): string[] {
  const done = new Set(reveals.map(([node]) => node));
  return auditors.filter((node) => !done.has(node));
}

function hasCommitted(duty: DutyRow, node: string): boolean {
  return duty.commitments.some(([auditor]) => auditor === node);
}

/** A block's number and time. */
export type BlockTime = Pick<BlockContext, 'number' | 'timeMs'>;

/** For a transaction in that block, and with what is committed and revealed by then. */
export function phaseOf(duty: DutyRow, block: BlockTime, policy: LedgerPolicy): DutyPhase {
  const { dueAt, dueMs } = duty;
  if (dueAt === 0) return 'awaiting-draw';
  const { auditBlocks, auditMsMin } = policy;
  const isPast = (number: number, timeMs: number) => block.number > number && block.timeMs > timeMs;
  const pending = pendingAuditors(duty);
  if (!isPast(dueAt, dueMs) && pending.some((node) => !hasCommitted(duty, node))) return 'committing';
  const isAwaited = pending.some((node) => hasCommitted(duty, node));
  return isAwaited && !isPast(dueAt + auditBlocks, dueMs + auditMsMin) ? 'revealing' : 'over';
}

/** The block after the newest, no earlier than it is. */
export function nextBlock(view: LedgerView): BlockTime {
  const { number, timeMs } = chainOf(view);
  return { number: number + 1, timeMs };
}

export interface OwedAudit {
  /** `proofKey` of the proof to audit. */
  readonly key: string;
  readonly duty: DutyRow;
  /** `commit`: re-execute, and send an `audit-commit`; `reveal`: send the `audit-reveal` that was committed to. */
  readonly next: 'commit' | 'reveal';
}

/** What a member has to do for audits now, for the block that comes next. */
export function auditsOwed(view: LedgerView, nodeId: string, policy: LedgerPolicy): OwedAudit[] {
  const next = nextBlock(view);
  const owed: OwedAudit[] = [];
  for (const key of view.keys('duty')) {
    const duty = view.get('duty', key)!;
    if (!pendingAuditors(duty).includes(nodeId)) continue;
    const phase = phaseOf(duty, next, policy);
    const committed = hasCommitted(duty, nodeId);
    if (phase === 'committing' && !committed) owed.push({ key, duty, next: 'commit' });
    if (phase === 'revealing' && committed) owed.push({ key, duty, next: 'reveal' });
  }
  return owed;
}

/** The step at the end of a block: settles what is over, then draws what is due. */
export function advanceDuties(draft: Draft, context: BlockContext): void {
  const { number, timeMs, constants } = context;
  const next = { number: number + 1, timeMs };
  for (const key of draft.keys('duty')) {
    // Gone, when another duty of its prover has just convicted it.
    const duty = draft.get('duty', key);
    if (duty && phaseOf(duty, next, constants.policy) === 'over') settle(draft, context, key, duty);
  }
  const due: Candidate[] = [];
  for (const key of draft.keys('duty')) {
    const duty = draft.get('duty', key)!;
    if (duty.dueAt === 0 && duty.drawAt <= number) due.push([key, duty]);
  }
  if (due.length > 0) drawDue(draft, context, due);
}

function drawDue(draft: Draft, context: BlockContext, due: readonly Candidate[]): void {
  const { policy } = context.constants;
  const { seeds, provers } = chainOf(draft);
  const seed = must(seeds.at(-1), 'a chain without seeds');
  for (const [key, duty] of due) if (duty.tier > 0) open(draft, context, seed, key, duty);
  const firstDraws = due.filter(([, duty]) => duty.tier === 0);
  const underWay = draft.keys('duty').filter((key) => draft.get('duty', key)!.dueAt > 0).length;
  const slots = Math.max(0, Math.min(policy.auditsPerBlockMax, policy.auditsOpenMax - underWay));
  const rate = auditRate(policy, provers);
  const draw = drawAudits(seed, firstDraws, { auditsPerBlockMax: slots }, rate);
  for (const [key, duty] of draw.passed) {
    draft.delete('duty', key);
    reward(draft, duty, duty.reward, 0);
  }
  for (const [key, duty] of draw.later) {
    if (duty.interval < 0) draft.put('duty', key, { ...duty, interval: 0 });
  }
  for (const [key, duty] of draw.now) {
    const interval = drawInterval(seed, key, duty.intervals, duty.contribution !== null);
    open(draft, context, seed, key, { ...duty, interval });
  }
}

/** Hands a duty to its auditors, or puts it off when there is nobody who could audit. */
function open(
  draft: Draft,
  { number, timeMs, constants }: BlockContext,
  seed: Uint8Array,
  key: string,
  duty: DutyRow,
) {
  const { policy } = constants;
  const eligible = chainOf(draft).voters.filter(
    ([node]) => node !== duty.prover && !duty.auditors.includes(node) && !isConvicted(draft, node),
  );
  const size = [policy.auditors, policy.auditorsEscalated, eligible.length + duty.auditors.length][
    duty.tier
  ]!;
  const drawn = drawAuditors({ seed, key, tier: duty.tier, eligible, count: size - duty.auditors.length });
  const auditors = [...duty.auditors, ...drawn];
  if (auditors.length === 0)
    draft.put('duty', key, {
      ...duty,
      interval: Math.max(0, duty.interval),
      drawAt: number + policy.auditBlocks,
    });
  else {
    const [dueAt, dueMs] = [number + policy.auditBlocks, timeMs + policy.auditMsMin];
    draft.put('duty', key, { ...duty, auditors, dueAt, dueMs });
  }
}

/** Gives the prover what a standing claim earned. Called with the duty gone from its table. */
function reward(draft: Draft, duty: DutyRow, amount: Amount, audited: 0 | 1): void {
  const row = must(draft.get('prover', duty.prover), 'the prover of a duty');
  const prover = { ...row, audits: row.audits + audited, openDuties: row.openDuties - 1 };
  draft.put('prover', duty.prover, vest(prover, duty.proof, duty.first, amount));
}

/** The contribution may enter its round. */
function clear(draft: Draft, node: string, cleared: Uint8Array): void {
  draft.put('prover', node, { ...must(draft.get('prover', node), 'the prover of a duty'), cleared });
}

function settle(draft: Draft, context: BlockContext, key: string, duty: DutyRow): void {
  const { policy } = context.constants;
  for (const node of pendingAuditors(duty)) penalize(draft, node, BigInt(policy.feePerAudit));
  const ruling = rule(duty, new Map(chainOf(draft).voters));
  if (ruling.kind === 'unclear') {
    escalate(draft, context, key, duty);
    return;
  }
  const right = ruling.right.filter((node) => !isConvicted(draft, node));
  const left = duty.reward - payAuditors(draft, policy, right, duty);
  if (ruling.kind === 'stands') {
    draft.delete('duty', key);
    reward(draft, duty, left, 1);
    if (duty.contribution) clear(draft, duty.prover, duty.contribution);
  } else {
    draft.put('duty', key, { ...duty, reward: left });
    convict(draft, context, { node: duty.prover, reason: ruling.reason, reporters: right });
  }
  for (const node of ruling.wrong) {
    if (isConvicted(draft, node)) continue;
    convict(draft, context, { node, reason: 'false-verdict', reporters: right });
  }
}

/** For doing an interval again: a share of what making it earned, for whoever audits for less than its cost will not. */
function feeOf({ feePerAudit, auditShare }: LedgerPolicy, { reward, intervals }: DutyRow): Amount {
  const share = shareOf(reward, auditShare) / BigInt(Math.max(1, intervals));
  return share > BigInt(feePerAudit) ? share : BigInt(feePerAudit);
}

/**
 * Fees come out of the audited reward, half of it at most, whatever the verdict: a name that is thrown away leaves nothing
 * else to pay those who recognised it. What they sum to.
 */
function payAuditors(draft: Draft, policy: LedgerPolicy, right: readonly string[], duty: DutyRow): Amount {
  if (right.length === 0) return 0n;
  const auditors = BigInt(right.length);
  const affordable = duty.reward / 2n / auditors;
  const asked = feeOf(policy, duty);
  const fee = affordable < asked ? affordable : asked;
  for (const node of right) credit(draft, node, fee);
  return fee * auditors;
}

/**
 * The next committee keeps the verdicts that are known, and adds to them. After the last one everything begins anew, with
 * another interval: an audit that nobody could finish is never a pass.
 */
function escalate(draft: Draft, { number }: BlockContext, key: string, duty: DutyRow): void {
  const next = { ...duty, drawAt: number + drawDelayBlocks, dueAt: 0, dueMs: 0, commitments: [] };
  if (duty.tier === lastTier) draft.put('duty', key, { ...next, tier: 0, auditors: [], reveals: [] });
  else {
    const auditors = duty.reveals.map(([node]) => node);
    draft.put('duty', key, { ...next, tier: duty.tier + 1, auditors });
  }
}
