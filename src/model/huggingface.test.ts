import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { utf8 } from '../std/bytes.ts';
import { type ModelConfig, presets } from './config.ts';
import { exportModel, fromHuggingFaceConfig, importParameters, toHuggingFaceConfig } from './huggingface.ts';
import { initialParameter } from './initialize.ts';
import { finalNormName, parameterList, wholeModel } from './parameters.ts';
import { type SafetensorsSource, writeSafetensors } from './safetensors.ts';

const small = { layers: 2, width: 8, ffn: 12, vocabulary: 16, context: 8, headWidth: 2 };
const config: ModelConfig = { ...presets.tiny, ...small };
const specs = parameterList(config, wholeModel(config));
const sources: SafetensorsSource[] = specs.map(({ name, shape }) => ({
  name,
  shape,
  data: initialParameter(utf8('seed'), name, shape, config),
}));
const parameterOf = (name: string) => sources.find((source) => source.name === name)!.data as Float32Array;

const codeOf = (outcome: { readonly ok: boolean; readonly code?: string }) =>
  outcome.ok ? 'ok' : outcome.code;
const importCode = (...files: Uint8Array[]) => codeOf(importParameters(config, ...files));

test('config.json goes both ways', () => {
  for (const model of [...Object.values(presets), config, { ...config, tiedEmbeddings: true }]) {
    const json = JSON.parse(JSON.stringify(toHuggingFaceConfig(model, { eosTokenId: 2 })));
    assert.deepEqual(fromHuggingFaceConfig(json), { ok: true, value: model });
  }
});

test('fields that other writers leave out get the defaults of Transformers', () => {
  const {
    head_dim: _head,
    num_key_value_heads: _kv,
    rope_theta: _theta,
    ...rest
  } = toHuggingFaceConfig(presets.small);
  const read = fromHuggingFaceConfig({ ...rest, rope_parameters: { rope_type: 'default', rope_theta: 5e5 } });
  assert.deepEqual(read, { ok: true, value: { ...presets.small, kvHeads: 8, ropeTheta: 5e5 } });
});

test('models that our graphs do not compute are refused', () => {
  const json = toHuggingFaceConfig(config);
  const unsupported = [
    { model_type: 'qwen2' },
    { model_type: undefined },
    { hidden_act: 'gelu' },
    { attention_bias: true },
    { mlp_bias: true },
    { rope_scaling: { rope_type: 'llama3', factor: 8 } },
    { rope_scaling: { type: 'linear', factor: 2 } },
    { rope_parameters: { rope_type: 'yarn' } },
    { rope_scaling: 'odd' },
  ];
  for (const change of unsupported) {
    assert.equal(
      codeOf(fromHuggingFaceConfig({ ...json, ...change })),
      'unsupported-model',
      JSON.stringify(change),
    );
  }
  assert.equal(codeOf(fromHuggingFaceConfig({ ...json, hidden_size: '8' })), 'bad-model-config');
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      assert.equal(fromHuggingFaceConfig(value).ok, false);
    }),
  );
  fc.assert(
    fc.property(fc.constantFrom(...Object.keys(json)), fc.jsonValue(), (key, value) => {
      const read = fromHuggingFaceConfig({ ...json, [key]: value });
      assert(read.ok || ['unsupported-model', 'bad-model-config'].includes(read.code));
    }),
  );
});

test('an exported model is imported bit for bit, whole or in parts', () => {
  const files = exportModel(config, parameterOf);
  assert.equal(
    JSON.parse(new TextDecoder().decode(files['config.json'])).architectures[0],
    'LlamaForCausalLM',
  );
  const imports = [
    importParameters(config, files['model.safetensors']),
    importParameters(config, writeSafetensors(sources.slice(5)), writeSafetensors(sources.slice(0, 5))),
  ];
  for (const imported of imports) {
    assert(imported.ok);
    assert.equal(imported.value.size, sources.length);
    for (const { name } of specs) assert.deepEqual(imported.value.get(name), parameterOf(name), name);
  }
});

test('tensors derived from others are passed over', () => {
  const derived = {
    name: 'model.layers.0.self_attn.rotary_emb.inv_freq',
    shape: [1],
    data: Float32Array.of(1),
  };
  assert.equal(importCode(writeSafetensors([...sources, derived])), 'ok');
  const tied = { ...config, tiedEmbeddings: true };
  assert.equal(codeOf(importParameters(tied, writeSafetensors(sources))), 'ok');
});

test('a missing, foreign, doubled, misshapen or non-finite tensor is refused', () => {
  const withNorm = (change: Partial<SafetensorsSource>) =>
    writeSafetensors(
      sources.map((source) => (source.name === finalNormName ? { ...source, ...change } : source)),
    );
  assert.equal(importCode(writeSafetensors(sources.slice(1))), 'missing-tensor');
  assert.equal(importCode(), 'missing-tensor');
  assert.equal(importCode(withNorm({ name: 'model.norm.bias' })), 'unexpected-tensor');
  assert.equal(
    importCode(writeSafetensors(sources), writeSafetensors(sources.slice(0, 1))),
    'duplicate-tensor',
  );
  assert.equal(importCode(withNorm({ shape: [8, 1] })), 'wrong-shape');
  assert.equal(importCode(withNorm({ data: new Int32Array(8) })), 'safetensors-dtype');
  assert.equal(importCode(withNorm({ data: new Float32Array(8).fill(Number.NaN) })), 'not-finite');
  assert.equal(importCode(utf8('not a safetensors file')), 'safetensors-header');
  assert.equal(importCode(writeSafetensors(sources).subarray(0, -1)), 'safetensors-truncated');
});

test('a flipped bit that leaves a number a number is found by the hash that we write', () => {
  const { 'model.safetensors': weights } = exportModel(config, parameterOf);
  assert.equal(importCode(weights), 'ok');
  const damaged = weights.slice();
  // The lowest bit of the last element's mantissa.
  damaged[damaged.length - 4]! ^= 1;
  assert.equal(importCode(damaged), 'weights-damaged');
  assert.equal(importCode(writeSafetensors(sources, { format: 'pt' })), 'ok', 'others write none');
});
