import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engineContract } from '../../../test/engine-contract.ts';
import { CodedError } from '../../std/outcome.ts';
import { GraphBuilder } from '../../tensor/graph.ts';
import { claimOnnxRuntime } from '../onnx-claim.ts';
import { createNativeEngine, type NativeProvider } from './onnx-native.ts';

engineContract('native-cpu', () => createNativeEngine({ threads: 1 }));

test('a provider that is not here is refused in one line', () => {
  assert.throws(
    () => createNativeEngine({ threads: 1, provider: 'abacus' as NativeProvider }),
    (error) =>
      error instanceof CodedError &&
      error.code === 'provider-unavailable' &&
      /available: /.test(error.message),
  );
});

test('the other binding is refused in the same process', () => {
  assert.throws(
    () => claimOnnxRuntime('onnxruntime-web'),
    /onnxruntime-web in a process that uses onnxruntime-node/,
  );
});

test('a session of a listed provider either runs or says in one line why not', async () => {
  const builder = new GraphBuilder();
  const graph = builder.finish({ y: builder.neg(builder.input('x', 'f32', [1])) });
  const y = new Float32Array(1);
  try {
    const engine = createNativeEngine({ threads: 1, provider: 'webgpu' });
    const program = await engine.compile(graph);
    await program.run({ x: Float32Array.of(2) }, { y });
    await engine.close();
    assert.equal(y[0], -2);
  } catch (error) {
    assert.ok(error instanceof CodedError && error.code === 'provider-unavailable', String(error));
    assert.ok(!error.message.includes('\n'));
  }
});
