/**
 * Starts the process in which audits re-execute: the wasm engine must not share one with the native engine. It is made when
 * it is first needed and can be stopped between two duties, for a re-executor takes as much memory as a replica.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ReExecutorSettings } from '../../audit/re-execute.ts';
import { CodedError } from '../../std/outcome.ts';
import { type AuditService, type AuditStart, auditMethods } from './audit-methods.ts';
import { processPort } from './compute-port.ts';
import { connectMethods } from './compute-rpc.ts';

export interface AuditProcess {
  readonly service: AuditService;
  /** Lets the calls made so far finish, and resolves when the process has ended. */
  stop(): Promise<void>;
  readonly pid: number;
}

export interface AuditProcessOptions {
  /** A node audits with what nothing else wants; a measurement does not. */
  readonly priority?: 'low' | 'normal';
}

/** `settings`: of each stage. Resolves when it is ready to re-execute; rejects with what kept it from it (`bad-stages`, `compute-stopped`). */
export async function startAuditProcess(
  settings: readonly ReExecutorSettings[],
  { priority = 'low' }: AuditProcessOptions = {},
): Promise<AuditProcess> {
  const extension = import.meta.url.endsWith('.ts') ? 'ts' : 'js';
  const child = fork(fileURLToPath(new URL(`./audit-process.${extension}`, import.meta.url)), {
    serialization: 'advanced',
    execArgv: [],
    // Standard output belongs to this process: a JSON document may be alone on it.
    stdio: ['ignore', 2, 2, 'ipc'],
  });
  let failure: Error | undefined;
  const ended = new Promise<void>((resolve) => {
    child.once('error', (error) => {
      failure = error;
      resolve();
    });
    child.once('exit', () => resolve());
  });
  child.send({ settings, priority } satisfies AuditStart);
  const port = processPort(child);
  const service = connectMethods<AuditService>(auditMethods, port);
  const stop = async () => {
    await service.close().catch(() => undefined);
    port.close();
    await ended;
  };
  try {
    await service.cpuMs();
  } catch (error) {
    await stop();
    const isStopped = error instanceof CodedError && error.code === 'compute-stopped';
    throw (isStopped ? failure : undefined) ?? error;
  }
  return { service, stop, pid: child.pid ?? 0 };
}
