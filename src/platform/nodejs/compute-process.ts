/**
 * Entry of the compute process: the wasm engine, which must not share a process with the native one, and the replica
 * over it. Started by `compute-host.ts` only, which sends the settings first; ends when the channel to it closes.
 */
import type { ReplicaSettings } from '../../diloco/local-replica.ts';
import { processPort } from './compute-port.ts';
import { serveCompute } from './compute-serve.ts';

// The terminal sends Ctrl-C to everyone: the parent decides when this process stops, and its death closes the channel.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => undefined);

process.once('message', async (settings) => {
  await serveCompute(processPort(process), settings as ReplicaSettings, async () => {
    const { createWasmEngine } = await import('./onnx-wasm.ts');
    return createWasmEngine();
  });
  process.exit();
});
