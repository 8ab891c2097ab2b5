/**
 * Entry of the compute thread: the native engine, whose runs block the thread they are called on, and the replica over
 * it. Started by `compute-host.ts` only; ends by itself when its port closes.
 */
import { type MessagePort, workerData } from 'node:worker_threads';
import type { ReplicaSettings } from '../../diloco/local-replica.ts';
import { threadPort } from './compute-port.ts';
import { serveCompute } from './compute-serve.ts';
import type { NativeProvider } from './onnx-native.ts';

export interface ComputeWorkerData {
  readonly port: MessagePort;
  readonly provider: NativeProvider;
  readonly threads: number;
  readonly replica: ReplicaSettings;
}

const { port, provider, threads, replica } = workerData as ComputeWorkerData;

await serveCompute(threadPort(port), replica, async () => {
  // Loaded here, so that a package that cannot be loaded is the answer to the first call.
  const { createNativeEngine } = await import('./onnx-native.ts');
  return createNativeEngine({ provider, threads });
});
