/** What the audit process is told first, what it answers then, and what becomes of the arrays in each call. */
import type { ReExecutor, ReExecutorSettings } from '../../audit/re-execute.ts';
import type { MethodTable } from './compute-rpc.ts';

export interface AuditStart {
  /** Of each stage of the model: provers hold any of them. */
  readonly settings: readonly ReExecutorSettings[];
  readonly priority: 'low' | 'normal';
}

export interface AuditService extends ReExecutor {
  /** Compute time of the audit process since it began: what the budget is charged with. */
  cpuMs(): Promise<number>;
}

export const auditMethods: MethodTable<AuditService> = {
  execute: 'kept',
  nextFeedback: 'kept',
  close: 'kept',
  cpuMs: 'kept',
};
