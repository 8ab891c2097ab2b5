import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { tinyConfig } from '../../test/tiny-replica.ts';
import type { ModelConfig } from '../model/config.ts';
import { parameterList, wholeModel } from '../model/parameters.ts';
import { sizeOf } from '../tensor/graph.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import {
  chunkLength,
  createSegments,
  flatLength,
  flatViews,
  forEachPiece,
  stageFlatLength,
} from './segments.ts';

function segmentsOf(config: ModelConfig) {
  return createSegments({
    config,
    stage: wholeModel(config),
    createMemory: createKernelMemory,
    embeddingScratchBytes: 0,
  });
}

for (const tiedEmbeddings of [false, true]) {
  const config = { ...tinyConfig, layers: 2, vocabulary: 700, tiedEmbeddings };
  const segments = segmentsOf(config);

  test(`${tiedEmbeddings ? 'tied' : 'untied'}: segments follow each other in whole chunks and hold every parameter once`, () => {
    let offset = 0;
    for (const segment of segments) {
      assert.equal(segment.offset, offset);
      assert.equal(segment.length % chunkLength, 0);
      assert.ok(segment.usedLength <= segment.length && segment.matrixLength <= segment.usedLength);
      for (const slab of Object.values(segment.slabs)) assert.equal(slab.length, segment.length);
      offset += segment.length;
    }
    assert.equal(flatLength(segments), offset);
    assert.equal(stageFlatLength(config, wholeModel(config)), offset);
    const held = segments.flatMap((segment) => Object.keys(segment.weightViews));
    assert.deepEqual(
      held,
      parameterList(config, wholeModel(config)).map(({ name }) => name),
    );
  });

  test(`${tiedEmbeddings ? 'tied' : 'untied'}: views of one vector are views of the slabs`, () => {
    const flat = new Float32Array(flatLength(segments));
    for (let i = 0; i < flat.length; i++) flat[i] = i;
    for (const { slabs, offset, length } of segments)
      slabs.weights.set(flat.subarray(offset, offset + length));
    const views = flatViews(config, wholeModel(config), flat);
    assert.ok(views);
    for (const { weightViews, parameters } of segments) {
      for (const { name, shape } of parameters) {
        assert.equal(weightViews[name]!.length, sizeOf(shape));
        assert.deepEqual(views[name], weightViews[name]);
      }
    }
    assert.equal(flatViews(config, wholeModel(config), flat.subarray(1)), undefined);
    assert.equal(
      flatViews(config, wholeModel(config), new Float32Array(flat.length + chunkLength)),
      undefined,
    );
  });
}

test('property: the pieces of a range are that range, in order, each in one segment', () => {
  const segments = segmentsOf(tinyConfig);
  const length = flatLength(segments);
  const position = fc.integer({ min: 0, max: length });
  fc.assert(
    fc.property(position, position, (one, other) => {
      const start = Math.min(one, other);
      const end = Math.max(one, other);
      let next = start;
      forEachPiece(segments, start, end, (segment, from, to, flatFrom) => {
        assert.equal(flatFrom, next);
        assert.equal(segment.offset + from, flatFrom);
        assert.ok(from < to && to <= segment.length);
        next += to - from;
      });
      assert.equal(next, end);
    }),
  );
});
