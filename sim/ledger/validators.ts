/**
 * Members of the simulated economy: they propose in turn and audit what they are drawn for, honestly or not. What an
 * honest re-execution would find is handed in; whoever does it pays for its computing.
 */
import { pendingAuditors, phaseOf } from '../../src/ledger/duties.ts';
import { accountOf, chainOf } from '../../src/ledger/money.ts';
import type { Author, BlockContext, LedgerConstants } from '../../src/ledger/rules.ts';
import type { DutyRow, Verdict } from '../../src/ledger/tables.ts';
import { auditCommit } from '../../src/ledger/transactions/audit-commit.ts';
import { auditReveal } from '../../src/ledger/transactions/audit-reveal.ts';
import { equivocation } from '../../src/ledger/transactions/equivocation.ts';
import { register } from '../../src/ledger/transactions/register.ts';
import { type RevealBody, verdictCommitment } from '../../src/ledger/verdict.ts';
import { holds } from '../scenario.ts';
import { authorOf, costShare, hashOf, intervalSteps, rewardPerStep } from './provers.ts';
import type { Rows } from './rows.ts';

export const validatorKinds = [
  'honest',
  /** Says of every claim that it is false, and of what it says knows nothing. */
  'accuser',
  /** Says of every claim that it is true. */
  'rubber-stamp',
  /** Commits to what another has committed to. */
  'copier',
  /** Proposes and votes, and audits nothing. */
  'lazy',
  /** Says nothing at all, but asks for its vote again whenever it may. */
  'silent',
  /** Shown to contradict itself, an hour after the beginning. */
  'equivocator',
  /** Keeps its block back when the seed would have a false proof of its friend audited. */
  'grinder',
] as const;
export type ValidatorKind = (typeof validatorKinds)[number];

export interface Validator {
  readonly kind: ValidatorKind;
  readonly author: Author;
  /** Audits that it really did, by duty and interval. */
  readonly done: Set<string>;
}

export interface ValidatorResult {
  readonly kind: ValidatorKind;
  /** Micro-NEURO gained or lost, less `cost`. */
  readonly profit: number;
  readonly cost: number;
}

/** What an honest auditor finds. */
export interface Truth {
  readonly verdict: Verdict;
  readonly hash: Uint8Array;
}

/** Micro-NEURO that each has at stake from the beginning. */
export const stakeOfEach = 1_000_000_000n;

export function createValidators(seed: number, kinds: readonly ValidatorKind[]): Validator[] {
  return kinds.map((kind, i) => ({ kind, author: authorOf(seed, `validator ${i}`), done: new Set() }));
}

/** Members with stake, which is in being from the beginning. */
export function seatValidators(rows: Rows, validators: readonly Validator[]): void {
  for (const { author } of validators) {
    const { nodeId, publicKey } = author;
    rows.put('account', nodeId, { ...accountOf(rows, nodeId), stake: stakeOfEach });
    rows.put('member', nodeId, {
      ...{ publicKey, founderWeight: 0, stage: 0, registered: true, convicted: false },
      ...{ beacon: null, beaconAt: 0, proposedAt: 0, jailedAt: 0 },
    });
  }
}

/** Whether it proposes when it is its turn. `isDrawn`: a false proof of the grinder's friend would be audited. */
export function speaks(rows: Rows, { kind, author }: Validator, isDrawn: () => boolean): boolean {
  if (!chainOf(rows).voters.some(([nodeId]) => nodeId === author.nodeId)) return false;
  return kind !== 'silent' && !(kind === 'grinder' && isDrawn());
}

/** One block's worth of audits; `truthOf` is asked only by those who do the work. */
export function auditAll(
  rows: Rows,
  context: BlockContext,
  validators: readonly Validator[],
  truthOf: (key: string, duty: DutyRow) => Truth,
): void {
  for (const key of rows.keys('duty')) {
    const duty = rows.get('duty', key)!;
    if (duty.dueAt === 0) continue;
    const pending = new Set(pendingAuditors(duty));
    const phase = phaseOf(duty, context, context.constants.policy);
    for (const validator of validators) {
      if (!pending.has(validator.author.nodeId)) continue;
      if (phase === 'committing') commit(rows, context, validator, key, truthOf);
      if (phase === 'revealing') reveal(rows, context, validator, key, truthOf);
    }
  }
}

function commit(
  rows: Rows,
  context: BlockContext,
  { kind, author, done }: Validator,
  key: string,
  truthOf: (key: string, duty: DutyRow) => Truth,
): void {
  const duty = rows.get('duty', key)!;
  if (duty.commitments.some(([node]) => node === author.nodeId)) return;
  const said = opinionOf(kind, author, key, () => truthOf(key, duty));
  const copied = duty.commitments[0]?.[1];
  const body = said && { duty: key, ...said, salt: hashOf('salt', author.nodeId, key) };
  const own = body && verdictCommitment(context.constants.networkId, author.nodeId, body);
  const commitment = kind === 'copier' ? copied : own;
  if (!commitment) return;
  if (isHonest(kind)) done.add(`${key}/${duty.interval}`);
  const taken = auditCommit.apply(rows, { duty: key, commitment }, author, context, commitment);
  holds(taken.ok, 'commitment-accepted', () => (taken.ok ? '' : taken.code));
}

function reveal(
  rows: Rows,
  context: BlockContext,
  { kind, author }: Validator,
  key: string,
  truthOf: (key: string, duty: DutyRow) => Truth,
): void {
  const duty = rows.get('duty', key)!;
  if (!duty.commitments.some(([node]) => node === author.nodeId)) return;
  const other = duty.reveals[0];
  const copied: Truth | undefined = other && { verdict: other[1], hash: other[2] };
  const said = kind === 'copier' ? copied : opinionOf(kind, author, key, () => truthOf(key, duty));
  if (!said) return;
  const body: RevealBody = { duty: key, ...said, salt: hashOf('salt', author.nodeId, key) };
  const taken = auditReveal.apply(rows, body, author, context, said.hash);
  // A copied commitment names another auditor: nobody can open it here.
  holds(taken.ok === (kind !== 'copier'), 'reveal', () => (taken.ok ? 'a copy was opened' : taken.code));
}

const isHonest = (kind: ValidatorKind) => kind === 'honest' || kind === 'equivocator' || kind === 'grinder';

function opinionOf(
  kind: ValidatorKind,
  { nodeId }: Author,
  key: string,
  truth: () => Truth,
): Truth | undefined {
  if (isHonest(kind)) return truth();
  if (kind === 'accuser') return { verdict: 'false', hash: hashOf('made up', nodeId, key) };
  if (kind === 'rubber-stamp') return { verdict: 'valid', hash: hashOf('made up', nodeId, key) };
  return undefined;
}

const equivocatesAt = 60;

/** What becomes known of them, and what they ask for: before the audits of a block. */
export function askAndAccuse(rows: Rows, context: BlockContext, validators: readonly Validator[]): void {
  const reporter = validators.find(({ kind }) => kind === 'honest')!.author;
  for (const { kind, author } of validators) {
    const member = rows.get('member', author.nodeId)!;
    if (kind === 'equivocator' && context.number >= equivocatesAt && !member.convicted) {
      const body = { accused: author.nodeId, evidence: new Uint8Array([1]) };
      const taken = equivocation.apply(rows, body, reporter, context, hashOf('id'));
      holds(taken.ok, 'accused', () => (taken.ok ? '' : taken.code));
    }
    if (kind === 'silent' && !member.registered)
      register.apply(rows, { stage: 0 }, author, context, hashOf('id'));
  }
}

export function validatorResult(
  rows: Rows,
  constants: LedgerConstants,
  { kind, author, done }: Validator,
): ValidatorResult {
  const { balance, stake } = accountOf(rows, author.nodeId);
  const cost = costShare * rewardPerStep(constants) * intervalSteps * done.size;
  return { kind, profit: Number(balance + stake - stakeOfEach) - cost, cost };
}
