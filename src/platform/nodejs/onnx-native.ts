/**
 * The engine on onnxruntime-node. `run` blocks the calling thread for its whole duration, so only the compute worker
 * uses it. Never load it in a process that loads onnxruntime-web: they share one backend registry.
 */
import * as ort from 'onnxruntime-node';
import { AssertionError } from '../../std/assert.ts';
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
  const engine = createOnnxEngine(
    `native-${provider}`,
    { InferenceSession: freeingResults, Tensor: ort.Tensor, writesFetches: true },
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
      // Idle pool threads would spin for work, at the cost of the other nodes on the machine (measured: a third).
      extra: { session: { intra_op: { allow_spinning: '0' } } },
    },
  );
  return provider === 'cpu' ? engine : { ...engine, compile: startingProvider(engine, provider) };
}

/**
 * The package copies every output once more into a buffer of the JavaScript heap, also where the output was written into
 * the caller's view. Nobody reads these copies; left to the garbage collector, those of a training step, as large as all
 * gradients, make it collect the whole heap every dozen steps.
 */
const freeingResults: ort.InferenceSessionFactory = {
  async create(...parameters: [unknown, unknown?]) {
    const create = ort.InferenceSession.create as (...given: unknown[]) => Promise<ort.InferenceSession>;
    const session = await create(...parameters);
    const run = session.run.bind(session) as (
      ...given: unknown[]
    ) => Promise<ort.InferenceSession.ReturnType>;
    return Object.assign(session, {
      async run(...given: unknown[]) {
        const results = await run(...given);
        for (const { data } of Object.values(results))
          if (ArrayBuffer.isView(data)) (data.buffer as ArrayBuffer).transfer(0);
        return {};
      },
    });
  },
};

/** A listed provider may still lack its driver or adapter, which only the first session tells. */
function startingProvider(engine: Engine, provider: NativeProvider): Engine['compile'] {
  return async (graph) => {
    try {
      return await engine.compile(graph);
    } catch (error) {
      if (error instanceof AssertionError) throw error;
      const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
      throw new CodedError(
        'provider-unavailable',
        `the ${provider} provider does not start (neuroshard doctor says what is missing): ${reason}`,
        {
          cause: error,
        },
      );
    }
  };
}
