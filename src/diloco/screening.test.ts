import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { seededRandom, uniform } from '../std/random.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { squaredNorms } from './aggregation/geometry.ts';
import { withRowStream } from './aggregation/stream.ts';
import { type BlobShape, createBlob, decodeRange, encodeRange } from './compression/blob.ts';
import type { CodecName } from './compression/codec.ts';
import { blobNorm, type Screened, screen } from './screening.ts';

const kernels = createKernelMemory({ bytes: 4 << 20 });
const length = 20_000;

function entry(nodeId: string, codec: CodecName, seed: number, scale = 1, batches = 20): Screened {
  const random = seededRandom(new Uint8Array(16).fill(seed));
  const position = kernels.mark();
  const x = kernels.allocF32(length);
  for (let i = 0; i < length; i++) x[i] = scale * (uniform(random) - 0.5);
  const blob = createBlob(codec, length);
  encodeRange(blob, { codec, length }, 0, x, kernels);
  kernels.reset(position);
  return { nodeId, batches, blob };
}

function screenAll(codec: CodecName, list: readonly Screened[], normMax = 1e6) {
  const { accepted, rejected } = screen(list, { shape: { codec, length }, kernels, normMax });
  assert.equal(accepted.length + rejected.length, list.length);
  return {
    accepted: accepted.map(({ nodeId }) => nodeId),
    rejected: Object.fromEntries(rejected.map(({ node, code }) => [node, code])),
  };
}

describe('screening', () => {
  for (const codec of ['f32', 'int8', 'int4', 'sparse'] as const) {
    it(`${codec}: honest contributions pass, hostile ones have their codes`, () => {
      const honest = ['a', 'b', 'c', 'd'].map((node, i) => entry(node, codec, i + 1, 1 + i / 4));
      assert.deepEqual(screenAll(codec, honest), { accepted: ['a', 'b', 'c', 'd'], rejected: {} });
      const hostile = [
        entry('flip', codec, 9, -10 * 2),
        entry('zero', codec, 9, 0),
        { ...honest[1]!, nodeId: 'copy' },
      ];
      assert.deepEqual(screenAll(codec, [hostile[0]!, ...honest, ...hostile.slice(1)]), {
        accepted: ['a', 'b', 'c', 'd'],
        rejected: { flip: 'norm-outlier', zero: 'zero', copy: 'duplicate' },
      });
    });
  }

  it('takes nobody for a duplicate of itself after one was found', () => {
    const [a, b, c] = ['a', 'b', 'c'].map((node, i) => entry(node, 'int8', i + 1)) as [
      Screened,
      Screened,
      Screened,
    ];
    const list = [a, { ...a, nodeId: 'copy-1' }, b, { ...a, nodeId: 'copy-2' }, c];
    assert.deepEqual(screenAll('int8', list), {
      accepted: ['a', 'b', 'c'],
      rejected: { 'copy-1': 'duplicate', 'copy-2': 'duplicate' },
    });
  });

  it('measures norms', () => {
    const shape: BlobShape = { codec: 'f32', length };
    const position = kernels.mark();
    const x = kernels.allocF32(length).fill(3);
    const blob = createBlob('f32', length);
    encodeRange(blob, shape, 0, x, kernels);
    assert.equal(blobNorm(blob, shape, kernels), Math.sqrt(9 * length));
    kernels.reset(position);
  });

  it('measures the norms that the rules would, to the bit', () => {
    const shape: BlobShape = { codec: 'int8', length };
    const list = [1, 2, 3].map((seed) => entry(`n${seed}`, 'int8', seed, seed));
    const memory = createKernelMemory({ bytes: 4 << 20 });
    const contributions = list.map(({ blob }) => ({
      weight: 1,
      read: (start: number, out: Float32Array) => decodeRange(blob, shape, start, out, memory),
    }));
    const measured = withRowStream({ contributions, length, kernels: memory }, squaredNorms).map(Math.sqrt);
    assert.deepEqual(screen(list, { shape, kernels, normMax: 1e6 }).norms, measured);
  });

  it('holds the absolute bound with any number, and the median only from three on', () => {
    const small = entry('small', 'f32', 1, 1e-3);
    const large = entry('large', 'f32', 2, 1);
    assert.deepEqual(screenAll('f32', [small, large]).accepted, ['small', 'large']);
    assert.deepEqual(screenAll('f32', [small, large], 10).rejected, { large: 'norm-bound' });
    assert.deepEqual(screenAll('f32', [large], 10).accepted, []);
    const third = entry('third', 'f32', 3, 1e-3);
    assert.deepEqual(screenAll('f32', [small, large, third]).rejected, { large: 'norm-outlier' });
  });

  it('lets a node with more batches go further', () => {
    const slow = [1, 2, 3].map((seed) => entry(`slow${seed}`, 'f32', seed, 1, 10));
    assert.deepEqual(screenAll('f32', [...slow, entry('fast', 'f32', 4, 20, 10)]).rejected, {
      fast: 'norm-outlier',
    });
    assert.deepEqual(screenAll('f32', [...slow, entry('fast', 'f32', 4, 20, 100)]).rejected, {});
  });

  it('keeps one of many copies, the first, and an outlier does not take its place', () => {
    const original = entry('x', 'sparse', 1);
    const copies = ['y', 'z'].map((nodeId) => ({ ...original, nodeId }));
    assert.deepEqual(screenAll('sparse', [copies[0]!, original, copies[1]!]), {
      accepted: ['y'],
      rejected: { x: 'duplicate', z: 'duplicate' },
    });
  });
});
