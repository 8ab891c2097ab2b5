import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { CodedError } from '../std/outcome.ts';
import { parameterCount, parseModelConfig, presetConfig, presets } from './config.ts';

test('every preset is a valid configuration and survives JSON', () => {
  for (const config of Object.values(presets)) {
    const parsed = parseModelConfig(JSON.parse(JSON.stringify(config)));
    assert.deepEqual(parsed, { ok: true, value: config });
  }
});

test('parameter counts of the presets', () => {
  assert.deepEqual(
    Object.entries(presets).map(([name, config]) => [name, parameterCount(config)]),
    [
      ['tiny', 1_311_872],
      ['small', 8_392_960],
      ['medium', 31_990_272],
      ['reference', 247_497_728],
    ],
  );
});

test('an unknown preset is refused with the list of those known', () => {
  for (const name of ['huge', '', 'toString', '__proto__']) {
    assert.throws(
      () => presetConfig(name),
      (error) =>
        error instanceof CodedError &&
        error.code === 'unknown-preset' &&
        /tiny, small, medium, reference/.test(error.message),
    );
  }
  assert.equal(presetConfig('tiny'), presets.tiny);
});

test('fields out of bounds, missing, or in conflict are rejected by name', () => {
  const broken: [string, unknown][] = [
    ['layers', { ...presets.tiny, layers: 0 }],
    ['width', { ...presets.tiny, width: 12.5 }],
    ['vocabulary', { ...presets.tiny, vocabulary: Number.NaN }],
    ['normEpsilon', { ...presets.tiny, normEpsilon: -1 }],
    ['kvHeads', { ...presets.tiny, kvHeads: 3 }],
    ['headWidth', { ...presets.tiny, headWidth: 33 }],
    ['tiedEmbeddings', { ...presets.tiny, tiedEmbeddings: undefined }],
    ['extra', { ...presets.tiny, extra: 1 }],
  ];
  for (const [field, json] of broken) {
    const parsed = parseModelConfig(json);
    assert(!parsed.ok && parsed.code === 'bad-model-config', field);
    assert.match(parsed.detail, new RegExp(field));
  }
});

test('no JSON value crashes the parser', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (json) => {
      assert.equal(parseModelConfig(json).ok, false);
    }),
  );
});
