/** The economy of a swarm whose members cheat: so densely audited that cheaters are found while somebody watches. */
import type { LedgerPolicy } from '../ledger/policy.ts';
import { defaultLedger } from '../peer/policy.ts';

/** Of one core, for each node: such a swarm is there for the audits. */
export const auditedShare = 0.5;

/** An audit of five steps finds a false proof as well as one of twenty, and there is time for four. */
const intervalSteps = 5;

/** Every proof is audited that the auditors have time for, and epochs are short, so that the silent are dropped soon. */
export function auditedLedger(innerSteps: number, stages = 1): LedgerPolicy {
  const ledger = defaultLedger(innerSteps, stages);
  return {
    ...ledger,
    intervalSteps: Math.min(intervalSteps, ledger.intervalSteps),
    auditRates: [{ below: Number.MAX_SAFE_INTEGER, rate: 1000 }],
    auditsPerBlockMax: 4,
    auditsOpenMax: 8,
    // Who withholds its evidence is waited for through two thirds of them, three times.
    auditBlocks: 30,
    auditMsMin: 30_000,
    epochBlocks: 20,
    silentTurns: 3,
  };
}
