/**
 * When an auditor may run its next duty, so that audits take no more than their share of the machine: a bucket of compute
 * time that fills with the clock. Reads an injected clock and is told what duties cost; it runs none itself.
 */
import type { Clock } from '../std/clock.ts';

/** Share of one core. */
export const auditShareDefault = 0.1;
/** What an idle auditor saves up at most: duties come in bursts at the ends of rounds. */
const savedMsMax = 60_000;
/** What is missing by less is missing only to the rounding of sums. */
const roundingMs = 1e-6;
/** Of the newest cost in the running mean. */
const newestShare = 0.25;

export interface AuditBudgetOptions {
  readonly clock: Clock;
  /** Of one core; `auditShareDefault`. */
  readonly share?: number;
}

export interface AuditBudget {
  /** Milliseconds until a duty of so many steps may begin; 0: now. A duty of unknown cost may begin when none is owed. */
  waitMs(steps: number): number;
  /** Of a duty that has run: compute time, and the inner steps in it. */
  spent(costMs: number, steps: number): void;
  /** Duties of so many steps that an hour affords; undefined before the first one was measured. */
  dutiesPerHour(steps: number): number | undefined;
}

export function createAuditBudget({ clock, share = auditShareDefault }: AuditBudgetOptions): AuditBudget {
  let saved = 0;
  let countedMs = clock.nowMs();
  let perStep: number | undefined;
  const fill = () => {
    const nowMs = clock.nowMs();
    saved = Math.min(savedMsMax, saved + share * Math.max(0, nowMs - countedMs));
    countedMs = nowMs;
  };
  return {
    waitMs: (steps) => {
      fill();
      // One that costs more than can be saved begins with all there is, and the debt is waited for afterwards.
      const needed = Math.min(savedMsMax, (perStep ?? 0) * steps);
      const missing = needed - saved;
      return missing <= roundingMs ? 0 : share > 0 ? Math.ceil(missing / share) : Number.POSITIVE_INFINITY;
    },
    spent: (costMs, steps) => {
      fill();
      saved -= costMs;
      const cost = costMs / Math.max(1, steps);
      perStep = perStep === undefined ? cost : perStep + newestShare * (cost - perStep);
    },
    dutiesPerHour: (steps) =>
      perStep === undefined ? undefined : (share * 3_600_000) / Math.max(1e-6, perStep * steps),
  };
}
