/**
 * Which contributions enter a round only after their audit: those of a stage that so few contribute to that no aggregation
 * can tell the wrong one. The ledger refuses a list with another one, and nodes do not propose it.
 * Source: docs/proofs.md, Small cohorts.
 */
import { equalBytes } from '../std/bytes.ts';
import type { LedgerView } from './draft.ts';
import { chainOf } from './money.ts';
import { replicasOf } from './reward.ts';
import type { LedgerConstants } from './rules.ts';
import { isConvicted } from './slash.ts';

export interface Contributed {
  readonly round: number;
  readonly stage: number;
  readonly nodeId: string;
  /** 32 bytes. */
  readonly blobHash: Uint8Array;
  /** To that stage in this round, this one included. */
  readonly contributors: number;
}

/** `unclaimed`: no proof names it yet; `claimed`: its audit has not ended; `refused`: its prover was convicted. */
export type Clearance = 'cleared' | 'claimed' | 'unclaimed' | 'refused';

export function clearanceOf(view: LedgerView, constants: LedgerConstants, one: Contributed): Clearance {
  if (one.contributors >= constants.policy.auditedCohort || !isAuditedFirst(view, constants, one))
    return 'cleared';
  if (isConvicted(view, one.nodeId)) return 'refused';
  const cleared = view.get('prover', one.nodeId)?.cleared;
  if (cleared && equalBytes(cleared, one.blobHash)) return 'cleared';
  return isUnderAudit(view, one) ? 'claimed' : 'unclaimed';
}

function isUnderAudit(view: LedgerView, { nodeId, blobHash }: Contributed): boolean {
  return view.keys('duty').some((key) => {
    const { prover, contribution } = view.get('duty', key)!;
    return prover === nodeId && contribution !== null && equalBytes(contribution, blobHash);
  });
}

/**
 * Whether a proof of this round is audited for certain, before its contribution can enter. Not in round 0, of which the
 * ledger knows no agreed state; not in the round in which a larger cohort shrinks, for its proofs were not all drawn; and
 * not where nobody else could audit, or nobody could say what the stage stands on.
 */
export function isAuditedFirst(
  view: LedgerView,
  constants: LedgerConstants,
  { round, stage, nodeId }: Pick<Contributed, 'round' | 'stage' | 'nodeId'>,
): boolean {
  const { auditedCohort } = constants.policy;
  if (round === 0 || replicasOf(view, constants, round, stage) >= auditedCohort) return false;
  const voters = chainOf(view).voters.map(([node]) => node);
  const isOfStage = (node: string) => view.get('member', node)?.stage === stage;
  return voters.some(isOfStage) && voters.some((node) => node !== nodeId && !isConvicted(view, node));
}

/** Whether blocks are wanted though nothing waits for one: an audit goes on with them that a round waits for. */
export function wantsBlocks(view: LedgerView): boolean {
  return view.keys('duty').some((key) => view.get('duty', key)!.contribution !== null);
}
