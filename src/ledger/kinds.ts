/**
 * All that can happen on the ledger: the rules of every kind of transaction, and the steps that end every block, in their
 * order. A network's nodes must agree on this table as on its policy.
 */
import type { EndBlockStep, TransactionRule } from './rules.ts';
import { transfer } from './transactions/transfer.ts';

const rules: readonly TransactionRule<unknown>[] = [transfer];

export const rulesByKind: ReadonlyMap<string, TransactionRule<unknown>> = new Map(
  rules.map((rule) => [rule.kind, rule]),
);

export const endBlockSteps: readonly EndBlockStep[] = [];
