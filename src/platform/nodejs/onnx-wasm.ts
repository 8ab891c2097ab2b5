/**
 * The engine on onnxruntime-web in Node: one thread of wasm, whose results are the same bits on every machine and in
 * browsers. That is what audits and the simulator need; it is several times slower than the native engine. Never load
 * it in a process that loads onnxruntime-node.
 */
import * as ort from 'onnxruntime-web/wasm';
import type { Engine } from '../../tensor/engine.ts';
import { claimOnnxRuntime } from '../onnx-claim.ts';
import { createOnnxEngine } from '../onnx-engine.ts';

/** Engine `wasm`. The wasm files are those of the onnxruntime-web package. */
export function createWasmEngine(): Engine {
  claimOnnxRuntime('onnxruntime-web');
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.proxy = false;
  ort.env.logLevel = 'fatal';
  return createOnnxEngine(
    'wasm',
    { InferenceSession: ort.InferenceSession, Tensor: ort.Tensor, writesFetches: false },
    {
      executionProviders: ['wasm'],
      executionMode: 'sequential',
      graphOptimizationLevel: 'all',
      enableCpuMemArena: true,
      enableMemPattern: false,
      logSeverityLevel: 4,
    },
  );
}
