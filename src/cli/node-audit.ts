/**
 * What a node audits with: the process of the wasm engine, started when the first duty comes, and a budget of compute time.
 * It knows no duties.
 */
import { auditShareDefault, createAuditBudget } from '../audit/budget.ts';
import type { ReExecutorSettings } from '../audit/re-execute.ts';
import type { Auditor } from '../peer/auditing.ts';
import { type AuditProcess, startAuditProcess } from '../platform/nodejs/audit-host.ts';
import type { Clock } from '../std/clock.ts';

export interface NodeAuditor extends Auditor {
  stop(): Promise<void>;
}

/** `settings`: of each stage of the model. `share`: of one core. The process holds as much memory as a replica, and only once it was needed. */
export function createNodeAuditor(
  settings: readonly ReExecutorSettings[],
  clock: Clock,
  share: number = auditShareDefault,
): NodeAuditor {
  let started: Promise<AuditProcess> | undefined;
  const service = async () => {
    started ??= startAuditProcess(settings);
    started.catch(() => (started = undefined));
    return (await started).service;
  };
  return {
    budget: createAuditBudget({ clock, share }),
    cpuMs: async () => (await service()).cpuMs(),
    executor: {
      execute: async (request) => (await service()).execute(request),
      nextFeedback: async (request) => (await service()).nextFeedback(request),
    },
    stop: async () => {
      await (await started?.catch(() => undefined))?.stop();
    },
  };
}
