import assert from 'node:assert/strict';
import { test } from 'node:test';
import { engineContract } from '../../../test/engine-contract.ts';
import { CodedError } from '../../std/outcome.ts';
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
