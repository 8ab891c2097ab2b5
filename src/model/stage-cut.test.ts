import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type ModelConfig, presets } from './config.ts';
import { parameterList, type StageSpec, stageParameterCount, wholeModel } from './parameters.ts';
import { cutStages } from './stage-cut.ts';

/** Work of a stage: looking up the embedding is none. */
const weight = (config: ModelConfig, stage: StageSpec) =>
  stageParameterCount(config, { ...stage, embedding: false });
const heaviest = (config: ModelConfig, stages: readonly StageSpec[]) =>
  Math.max(...stages.map((stage) => weight(config, stage)));

/** Every way to cut, by its ends. */
function* allCuts(layers: number, count: number, from = 0): Generator<number[]> {
  if (count === 1) {
    yield [layers];
    return;
  }
  for (let end = from + 1; end <= layers - count + 1; end++)
    for (const rest of allCuts(layers, count - 1, end)) yield [end, ...rest];
}

function stagesOf(config: ModelConfig, ends: readonly number[]): StageSpec[] {
  return ends.map((endLayer, i) => ({
    firstLayer: ends[i - 1] ?? 0,
    endLayer,
    embedding: i === 0,
    head: endLayer === config.layers,
  }));
}

test('property: stages follow each other, hold every parameter once, and none can be lighter than the heaviest', () => {
  const shape = fc.record({
    layers: fc.integer({ min: 1, max: 8 }),
    vocabulary: fc.constantFrom(16, 300, 5000),
    share: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(shape, ({ layers, vocabulary, share }) => {
      const config = { ...presets.tiny, layers, vocabulary };
      const count = 1 + Math.floor(share * (layers - 1));
      const stages = cutStages(config, count);
      assert.equal(stages.length, count);
      assert.deepEqual(
        stages.flatMap((stage) => parameterList(config, stage)),
        parameterList(config, wholeModel(config)),
      );
      for (const { firstLayer, endLayer } of stages) assert.ok(firstLayer < endLayer);
      const best = Math.min(
        ...[...allCuts(layers, count)].map((ends) => heaviest(config, stagesOf(config, ends))),
      );
      assert.equal(heaviest(config, stages), best);
    }),
    { numRuns: 60 },
  );
});

test('where nothing else decides, the earlier stage takes more layers; a heavy head takes fewer with it', () => {
  const ends = (config: ModelConfig, count: number) =>
    cutStages(config, count).map(({ endLayer }) => endLayer);
  assert.deepEqual(ends({ ...presets.tiny, layers: 5, vocabulary: 1 }, 2), [3, 5]);
  assert.deepEqual(ends(presets.tiny, 2), [3, 4]);
  assert.deepEqual(
    ends(presets.reference, 16),
    Array.from({ length: 16 }, (_, i) => i + 1),
  );
});

test('cuts that cannot be are refused', () => {
  for (const count of [0, -1, 1.5, Number.NaN, 5])
    assert.throws(() => cutStages(presets.tiny, count), { code: 'bad-stages' });
  const tied = { ...presets.tiny, tiedEmbeddings: true };
  assert.throws(() => cutStages(tied, 2), { code: 'bad-stages' });
  assert.deepEqual(cutStages(tied, 1), [wholeModel(tied)]);
});
