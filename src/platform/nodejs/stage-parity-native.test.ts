/** On the native engine, a chain of stages trains the whole model's very numbers. */
import { test } from 'node:test';
import { checkParity } from '../../../test/stage-parity.ts';
import { tinyConfig } from '../../../test/tiny-replica.ts';
import { presets } from '../../model/config.ts';
import { createNativeEngine } from './onnx-native.ts';

test('two and three stages as wide as the tiny preset are the whole model, bit for bit', () =>
  checkParity({
    engine: () => createNativeEngine({ threads: 1 }),
    config: { ...presets.tiny, layers: 3, vocabulary: 500 },
    batch: 2,
    sequence: 40,
    steps: [3, 1],
    cuts: [1, 2, 3],
  }));

test('so they are with more threads, and shapes that fit no kernel evenly', () =>
  checkParity({
    engine: () => createNativeEngine({ threads: 2 }),
    config: {
      ...tinyConfig,
      layers: 3,
      width: 40,
      heads: 5,
      kvHeads: 1,
      headWidth: 8,
      ffn: 52,
      vocabulary: 301,
      context: 19,
    },
    batch: 3,
    sequence: 19,
    steps: [2, 2],
    cuts: [1, 2, 3],
  }));
