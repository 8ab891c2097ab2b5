/** The economy of a swarm whose members cheat: so densely audited that cheaters are found while somebody watches. */
import type { LedgerPolicy } from '../ledger/policy.ts';
import { defaultLedger } from '../peer/policy.ts';

/** Of one core, for each node: such a swarm is there for the audits. */
export const auditedShare = 0.5;

/** Every proof is audited that the auditors have time for, and epochs are short, so that the silent are dropped soon. */
export function auditedLedger(innerSteps: number, stages = 1): LedgerPolicy {
  const ledger = defaultLedger(innerSteps, stages);
  return {
    ...ledger,
    intervalSteps: stages === 1 ? innerSteps : ledger.intervalSteps,
    auditRates: [{ below: Number.MAX_SAFE_INTEGER, rate: 1000 }],
    auditsPerBlockMax: 2,
    auditsOpenMax: 4,
    // Who withholds its evidence is waited for through two thirds of them, three times.
    auditBlocks: 30,
    epochBlocks: 20,
    silentTurns: 3,
  };
}
