/** On the wasm engine, which shares no process with the native one, a chain of stages trains the whole model's numbers. */
import { test } from 'node:test';
import { checkParity } from '../../../test/stage-parity.ts';
import { tinyConfig } from '../../../test/tiny-replica.ts';
import { createWasmEngine } from './onnx-wasm.ts';

test('two and three stages are the whole model, bit for bit', () =>
  checkParity({
    engine: () => createWasmEngine(),
    config: { ...tinyConfig, layers: 3, width: 32, headWidth: 16, ffn: 48, vocabulary: 64, context: 16 },
    batch: 2,
    sequence: 16,
    steps: [3, 2],
    cuts: [1, 2, 3],
  }));
