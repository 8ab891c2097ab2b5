import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ModelConfig, parameterCount, presets } from './config.ts';
import { checkStage, elementCount, parameterList, type StageSpec, wholeModel } from './parameters.ts';

const tied: ModelConfig = { ...presets.tiny, tiedEmbeddings: true };

test('the whole model lists every parameter once, and as many elements as counted', () => {
  for (const config of [...Object.values(presets), tied]) {
    const list = parameterList(config, wholeModel(config));
    assert.equal(elementCount(list), parameterCount(config));
    assert.equal(new Set(list.map(({ name }) => name)).size, list.length);
    assert.equal(list.length, 9 * config.layers + (config.tiedEmbeddings ? 2 : 3));
  }
});

test('stages that cut the model anywhere concatenate to the whole, in order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 8 }), { maxLength: 6 }), (cuts) => {
      const config = presets.small;
      const bounds = [0, ...cuts.sort((a, b) => a - b), config.layers];
      const stages: StageSpec[] = bounds.slice(1).map((endLayer, i) => ({
        firstLayer: bounds[i]!,
        endLayer,
        embedding: i === 0,
        head: i === bounds.length - 2,
      }));
      const held = stages.filter((s) => s.embedding || s.head || s.firstLayer < s.endLayer);
      assert.deepEqual(
        held.flatMap((stage) => parameterList(config, stage)),
        parameterList(config, wholeModel(config)),
      );
    }),
  );
});

test('segments are contiguous, and matrices precede vectors in each', () => {
  const list = parameterList(presets.tiny, wholeModel(presets.tiny));
  const segments = list.map(({ segment }) => segment);
  const order = [...new Set(segments)];
  assert.deepEqual(order, ['embedding', 'layer.0', 'layer.1', 'layer.2', 'layer.3', 'head']);
  assert.deepEqual(
    segments,
    order.flatMap((segment) => segments.filter((other) => other === segment)),
  );
  for (const segment of order) {
    const kinds = list.filter((parameter) => parameter.segment === segment).map(({ kind }) => kind);
    assert(!kinds.join().includes('vector,matrix'), segment);
  }
});

test('impossible stages are refused', () => {
  const bad: StageSpec[] = [
    { firstLayer: 0, endLayer: 5, embedding: true, head: false },
    { firstLayer: 2, endLayer: 1, embedding: false, head: false },
    { firstLayer: 1, endLayer: 1, embedding: false, head: false },
    { firstLayer: 1, endLayer: 4, embedding: true, head: true },
    { firstLayer: 0, endLayer: 3, embedding: true, head: true },
    { firstLayer: 0.5, endLayer: 3, embedding: false, head: false },
  ];
  for (const stage of bad) assert.throws(() => checkStage(presets.tiny, stage), { code: 'bad-stage' });
  const first: StageSpec = { firstLayer: 0, endLayer: 2, embedding: true, head: false };
  checkStage(presets.tiny, first);
  assert.throws(() => checkStage(tied, first), { code: 'bad-stage' });
});
