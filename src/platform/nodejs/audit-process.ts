/**
 * Entry of the audit process: the wasm engine at a low priority, and the re-executor over it. Started by
 * `audit-host.ts` only, which sends the settings first; ends when the channel to it closes.
 */
import { setPriority } from 'node:os';
import { createStageExecutors } from '../../audit/executors.ts';
import { createReExecutor, type ReExecutor, type ReExecutorSettings } from '../../audit/re-execute.ts';
import { cutStages } from '../../model/stage-cut.ts';
import { must } from '../../std/assert.ts';
import { type AuditStart, auditMethods } from './audit-methods.ts';
import { processPort } from './compute-port.ts';
import { serveMethods } from './compute-rpc.ts';
import { createWasmEngine } from './onnx-wasm.ts';
import { installNodeSha256 } from './sha256.ts';

/**
 * The budget bounds what audits take. Lower than this, they never finish where nodes that train fill every core: 19 gets
 * 1.5% of what they get.
 */
const lowPriority = 5;

function createExecutors(settings: readonly ReExecutorSettings[]): ReExecutor {
  for (const { config, stages = 1 } of settings) cutStages(config, stages);
  return createStageExecutors((stage) =>
    createReExecutor({ ...must(settings[stage], 'a stage of the model'), engine: createWasmEngine() }),
  );
}

// The terminal sends Ctrl-C to everyone: the parent decides when this process stops, and its death closes the channel.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

process.once('message', async (message) => {
  const { settings, priority } = message as AuditStart;
  installNodeSha256();
  // Training and serving come first. Where the system does not let it be lowered, the budget still holds.
  try {
    if (priority === 'low') setPriority(lowPriority);
  } catch {}
  const port = processPort(process);
  const closed = new Promise<void>((resolve) => port.onClose(resolve));
  const service = Promise.try(() => ({
    ...createExecutors(settings),
    cpuMs: async () => {
      const { user, system } = process.cpuUsage();
      return (user + system) / 1000;
    },
  }));
  serveMethods(service, auditMethods, port);
  await closed;
  process.exit();
});
