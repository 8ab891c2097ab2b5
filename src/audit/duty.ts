/**
 * What an auditor does with a duty that was drawn for it: wait for its budget, audit, and make the commitment and the
 * revelation that the ledger takes. It keeps asking for evidence as long as there is time. It sends no transaction.
 */
import { type RevealBody, verdictCommitment } from '../ledger/verdict.ts';
import { fromHex } from '../std/bytes.ts';
import { type Clock, sleep } from '../std/clock.ts';
import { type AuditOptions, type AuditVerdict, auditInterval } from './audit-interval.ts';
import type { AuditBudget } from './budget.ts';
import { intervalRange } from './claim.ts';

export interface DutyOptions extends AuditOptions {
  readonly networkId: Uint8Array;
  /** This node. */
  readonly auditor: string;
  /** `proofKey` of the audited proof. */
  readonly duty: string;
  /** 32 random bytes, kept until the revelation: whoever knows them can read the commitment. */
  readonly salt: Uint8Array;
  readonly clock: Clock;
  readonly budget: AuditBudget;
  /** A round stands still until this audit has ended: it begins at once, and its cost is saved up afterwards. */
  readonly isAwaited?: boolean;
  /** Compute time that the executor has used so far. */
  readonly cpuMs: () => Promise<number>;
  /** Aborts when there is just time left to commit: evidence that has not come by then counts as withheld. */
  readonly due: AbortSignal;
  /** Ends it without a verdict: the node stops, or the duty is gone. */
  readonly signal: AbortSignal;
}

export interface DutyResult {
  readonly finding: AuditVerdict;
  readonly commitment: Uint8Array;
  /** To be kept where a restart finds it: a commitment that is never revealed costs a fee. */
  readonly reveal: RevealBody;
}

/** Between two attempts to get the evidence. */
const retryMs = 2_000;
/** Between two looks at a budget that may never suffice. */
const waitMsMax = 60_000;

/** Undefined when the budget does not allow it in time: an audit that was not done is never a pass. Rejects on abort. */
export async function performDuty(options: DutyOptions): Promise<DutyResult | undefined> {
  const { claim, interval, rules, budget, isAwaited = false, signal } = options;
  const [from, to] = intervalRange(interval, claim, rules.intervalSteps);
  const waitMs = () => (isAwaited ? 0 : budget.waitMs(to - from));
  for (let ms = waitMs(); ms > 0; ms = waitMs())
    if (!(await rest(options, Math.min(ms, waitMsMax)))) return undefined;
  for (;;) {
    signal.throwIfAborted();
    const before = await options.cpuMs();
    const finding = await auditInterval(options);
    budget.spent((await options.cpuMs()) - before, to - from);
    if (finding.verdict !== 'withheld' || !(await rest(options, retryMs))) return result(options, finding);
  }
}

/** False when it is time to commit. Rejects on abort. */
async function rest({ clock, signal, due }: DutyOptions, forMs: number): Promise<boolean> {
  await sleep(clock, forMs, AbortSignal.any([signal, due])).catch(() => {});
  signal.throwIfAborted();
  return !due.aborted;
}

function result({ networkId, auditor, duty, salt }: DutyOptions, finding: AuditVerdict): DutyResult {
  const { verdict, stateHash } = finding;
  const reveal = { duty, verdict, hash: fromHex(stateHash), salt };
  return { finding, reveal, commitment: verdictCommitment(networkId, auditor, reveal) };
}
