/**
 * All that can happen on the ledger: the rules of every kind of transaction, and the steps that end every block, in their
 * order. A network's nodes must agree on this table as on its policy.
 */
import { advanceDuties } from './duties.ts';
import type { EndBlockStep, TransactionRule } from './rules.ts';
import { dropSilent } from './silence.ts';
import { auditCommit } from './transactions/audit-commit.ts';
import { auditReveal } from './transactions/audit-reveal.ts';
import { challenge } from './transactions/challenge.ts';
import { claim } from './transactions/claim.ts';
import { equivocation } from './transactions/equivocation.ts';
import { escrow } from './transactions/escrow.ts';
import { fraud } from './transactions/fraud.ts';
import { leave } from './transactions/leave.ts';
import { proof } from './transactions/proof.ts';
import { refund } from './transactions/refund.ts';
import { register } from './transactions/register.ts';
import { retire } from './transactions/retire.ts';
import { round } from './transactions/round.ts';
import { stake } from './transactions/stake.ts';
import { stateStatement } from './transactions/state.ts';
import { transfer } from './transactions/transfer.ts';
import { unstake } from './transactions/unstake.ts';

const rules: readonly TransactionRule<unknown>[] = [
  transfer,
  stake,
  unstake,
  register,
  leave,
  escrow,
  claim,
  refund,
  round,
  stateStatement,
  equivocation,
  proof,
  auditCommit,
  auditReveal,
  fraud,
  challenge,
  retire,
];

export const rulesByKind: ReadonlyMap<string, TransactionRule<unknown>> = new Map(
  rules.map((rule) => [rule.kind, rule]),
);

export const endBlockSteps: readonly EndBlockStep[] = [advanceDuties, dropSilent];
