import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bytesOf, utf8 } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { presets } from './config.ts';
import { initialParameter } from './initialize.ts';
import { embeddingName, layerNames } from './parameters.ts';

const seed = utf8('test network');
const config = presets.tiny;
const names = layerNames(1);

function momentsOf(values: Float32Array): { mean: number; deviation: number; kurtosis: number } {
  let mean = 0;
  for (const x of values) mean += x / values.length;
  let second = 0;
  let fourth = 0;
  for (const x of values) {
    second += (x - mean) ** 2 / values.length;
    fourth += (x - mean) ** 4 / values.length;
  }
  return { mean, deviation: Math.sqrt(second), kurtosis: fourth / second ** 2 };
}

test('values are the same bits on every machine', () => {
  const hash = (name: string, shape: number[]) =>
    sha256Hex(bytesOf(initialParameter(seed, name, shape, config)));
  assert.equal(
    hash(names.query, [128, 128]),
    'f7e5bf4b91740319954dc8471fe1e066e05ac588f4da43dbbcad88b04b6c88a8',
  );
  assert.equal(
    hash(names.down, [128, 384]),
    '019c1969023fc89a2dc63275f534bca739c81c437965625911606f52f444b2f5',
  );
});

test('matrices are normal with deviation 0.02, less where they write into the residual stream', () => {
  const embedding = momentsOf(initialParameter(seed, embeddingName, [2048, 128], config));
  assert(Math.abs(embedding.mean) < 2e-4);
  assert(Math.abs(embedding.deviation - 0.02) < 2e-4);
  assert(Math.abs(embedding.kurtosis - 2.9) < 0.05, `kurtosis ${embedding.kurtosis}`);
  for (const name of [names.output, names.down]) {
    const { deviation } = momentsOf(initialParameter(seed, name, [128, 384], config));
    assert(Math.abs(deviation - 0.02 / Math.sqrt(8)) < 2e-4, name);
  }
});

test('norms begin at one', () => {
  assert(initialParameter(seed, names.ffnNorm, [128], config).every((value) => value === 1));
});

test('seed and name decide, and nothing else', () => {
  const first = initialParameter(seed, names.gate, [384, 128], config);
  assert.deepEqual(initialParameter(seed, names.gate, [384, 128], config), first);
  assert.notDeepEqual(initialParameter(seed, names.up, [384, 128], config), first);
  assert.notDeepEqual(initialParameter(utf8('another'), names.gate, [384, 128], config), first);
  const out = new Float32Array(384 * 128);
  assert.equal(initialParameter(seed, names.gate, [384, 128], config, out), out);
  assert.deepEqual(out, first);
  assert.throws(() => initialParameter(seed, names.gate, [384, 128], config, new Float32Array(3)));
});
