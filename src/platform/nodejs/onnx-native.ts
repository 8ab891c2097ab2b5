/**
 * The engine on onnxruntime-node. `run` blocks the calling thread for its whole duration, so only the compute worker
 * uses it. Never load it in a process that loads onnxruntime-web: they share one backend registry.
 */
import * as ort from 'onnxruntime-node';
import { CodedError } from '../../std/outcome.ts';
import type { Engine } from '../../tensor/engine.ts';
import { claimOnnxRuntime } from '../onnx-claim.ts';
import { createOnnxEngine } from '../onnx-engine.ts';

export type NativeProvider = 'cpu' | 'webgpu' | 'cuda';

export interface NativeEngineOptions {
  /** Threads of one operation; 1 runs everything on the calling thread. */
  readonly threads: number;
  readonly provider?: NativeProvider;
}

/** Engine `native-<provider>`. Throws `provider-unavailable` when this machine's package does not carry the provider. */
export function createNativeEngine({ threads, provider = 'cpu' }: NativeEngineOptions): Engine {
  claimOnnxRuntime('onnxruntime-node');
  const available = ort.listSupportedBackends().map((backend) => backend.name);
  if (!available.includes(provider)) {
    throw new CodedError(
      'provider-unavailable',
      `no ${provider} provider here; available: ${available.join(', ')}`,
    );
  }
  return createOnnxEngine(
    `native-${provider}`,
    { InferenceSession: ort.InferenceSession, Tensor: ort.Tensor, writesFetches: true },
    {
      executionProviders: provider === 'cpu' ? ['cpu'] : [provider, 'cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
      executionMode: 'sequential',
      graphOptimizationLevel: 'all',
      enableCpuMemArena: true,
      // With static shapes the pattern planner reserves one block for the sum of all lifetimes it cannot overlap.
      enableMemPattern: false,
      logSeverityLevel: 4,
    },
  );
}
