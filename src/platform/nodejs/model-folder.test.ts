import assert from 'node:assert/strict';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { smallModel, temporaryFolder } from '../../../test/small-world.ts';
import { endOfText } from '../../genesis/bpe-trainer.ts';
import { byteCharacters } from '../../genesis/byte-level.ts';
import { initialParameter } from '../../model/initialize.ts';
import { parameterList, wholeModel } from '../../model/parameters.ts';
import { writeSafetensors } from '../../model/safetensors.ts';
import { must } from '../../std/assert.ts';
import { utf8 } from '../../std/bytes.ts';
import { prepareModelFolder, readModelFolder, writeModelFolder } from './model-folder.ts';

const specs = parameterList(smallModel, wholeModel(smallModel));
const weights = new Map(
  specs.map(({ name, shape }) => [name, initialParameter(utf8('seed'), name, shape, smallModel)]),
);
const parameters = (name: string) => must(weights.get(name), name);
const tokenizerJson = utf8(JSON.stringify(byteTokenizer()));

/** A byte-level tokenizer without merges: end of text and the 256 bytes. */
function byteTokenizer() {
  const vocab = Object.fromEntries([endOfText, ...byteCharacters].map((token, id) => [token, id]));
  return {
    version: '1.0',
    added_tokens: [{ id: 0, content: endOfText, special: true }],
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    decoder: { type: 'ByteLevel' },
    model: { type: 'BPE', vocab, merges: [] },
  };
}

async function written(t: TestContext): Promise<string> {
  const folder = join(temporaryFolder(t), 'models', 'small');
  await writeModelFolder(folder, { config: smallModel, parameters, tokenizerJson });
  return folder;
}

test('what is written is read back, and nothing half-written stays', async (t) => {
  const folder = await written(t);
  assert.deepEqual(readdirSync(folder).sort(), [
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ]);
  const model = await readModelFolder(folder);
  assert.deepEqual(model.config, smallModel);
  assert.deepEqual(new Map(model.parameters), weights);
  assert.deepEqual([model.beginToken, model.endTokens], [0, [0]]);
  assert.equal(model.tokenizer.vocabularySize, 257);
  const { bos_token: begin, model_max_length: longest } = JSON.parse(
    readFileSync(join(folder, 'tokenizer_config.json'), 'utf8'),
  );
  assert.deepEqual([begin, longest], [endOfText, smallModel.context]);
});

test('a checkpoint in parts is read by its index', async (t) => {
  const folder = await written(t);
  rmSync(join(folder, 'model.safetensors'));
  const parts = [specs.slice(0, 7), specs.slice(7)];
  const map: Record<string, string> = {};
  for (const [index, part] of parts.entries()) {
    const name = `model-0000${index + 1}-of-00002.safetensors`;
    const sources = part.map((spec) => ({ ...spec, data: parameters(spec.name) }));
    writeFileSync(join(folder, name), writeSafetensors(sources));
    for (const spec of part) map[spec.name] = name;
  }
  const index = join(folder, 'model.safetensors.index.json');
  writeFileSync(index, JSON.stringify({ weight_map: map }));
  assert.deepEqual(new Map((await readModelFolder(folder)).parameters), weights);
  for (const bad of [{}, { weight_map: {} }, { weight_map: { a: '../secret' } }, { weight_map: { a: 3 } }]) {
    writeFileSync(index, JSON.stringify(bad));
    await assert.rejects(readModelFolder(folder), { code: 'bad-weights-index' });
  }
  writeFileSync(index, JSON.stringify({ weight_map: { ...map, more: 'nowhere.safetensors' } }));
  await assert.rejects(readModelFolder(folder), { code: 'not-found' });
});

test('each bad file is one coded error that names it', async (t) => {
  const good = await written(t);
  const config = JSON.parse(readFileSync(join(good, 'config.json'), 'utf8'));
  const bytes = readFileSync(join(good, 'model.safetensors'));
  const notFinite = Buffer.from(bytes);
  notFinite.writeFloatLE(Number.NaN, bytes.length - 4);
  const cases: [string, string | Uint8Array | undefined, string][] = [
    ['config.json', undefined, 'not-found'],
    ['config.json', '{', 'bad-model-config'],
    ['config.json', '[]', 'bad-model-config'],
    ['config.json', JSON.stringify({ ...config, hidden_size: -1 }), 'bad-model-config'],
    ['config.json', JSON.stringify({ ...config, model_type: 'gpt2' }), 'unsupported-model'],
    ['config.json', JSON.stringify({ ...config, vocab_size: 200 }), 'wrong-vocabulary'],
    ['config.json', JSON.stringify({ ...config, num_hidden_layers: 3 }), 'missing-tensor'],
    ['config.json', JSON.stringify({ ...config, num_hidden_layers: 1 }), 'unexpected-tensor'],
    ['config.json', JSON.stringify({ ...config, intermediate_size: 64 }), 'wrong-shape'],
    ['tokenizer.json', undefined, 'not-found'],
    ['tokenizer.json', 'null', 'tokenizer-invalid'],
    ['tokenizer.json', JSON.stringify({ model: { type: 'Magic' } }), 'tokenizer-unsupported'],
    ['model.safetensors', undefined, 'not-found'],
    ['model.safetensors', '', 'safetensors-truncated'],
    ['model.safetensors', bytes.subarray(0, -5), 'safetensors-truncated'],
    ['model.safetensors', notFinite, 'not-finite'],
  ];
  for (const [index, [file, content, code]] of cases.entries()) {
    const folder = join(good, '..', `case-${index}`);
    cpSync(good, folder, { recursive: true });
    if (content === undefined) rmSync(join(folder, file));
    else writeFileSync(join(folder, file), content);
    await assert.rejects(readModelFolder(folder), (error: { code?: string; message: string }) => {
      assert.equal(error.code, code, `${file} ${index}: ${error.message}`);
      assert.ok(!error.message.includes('\n') && error.message.length < 300, error.message);
      return true;
    });
  }
  assert.equal((await readModelFolder(good)).config.layers, 2);
});

test('a begin token outside the vocabulary is none', async (t) => {
  const folder = await written(t);
  const path = join(folder, 'config.json');
  const config = JSON.parse(readFileSync(path, 'utf8'));
  writeFileSync(path, JSON.stringify({ ...config, bos_token_id: 99_999, eos_token_id: [0, 7, -1, 'x'] }));
  const { beginToken, endTokens } = await readModelFolder(folder);
  assert.deepEqual([beginToken, endTokens], [undefined, [0, 7]]);
});

test('a folder with a model is refused, an empty one is not', async (t) => {
  const folder = temporaryFolder(t);
  await prepareModelFolder(join(folder, 'new', 'one'), { force: false });
  writeFileSync(join(folder, 'notes.txt'), '');
  await prepareModelFolder(folder, { force: false });
  mkdirSync(join(folder, 'taken'));
  writeFileSync(join(folder, 'taken', 'config.json'), '{}');
  await assert.rejects(prepareModelFolder(join(folder, 'taken'), { force: false }), {
    code: 'already-exists',
  });
  await prepareModelFolder(join(folder, 'taken'), { force: true });
});

test('a place that cannot be written to is one coded error', async (t) => {
  const file = join(temporaryFolder(t), 'file');
  writeFileSync(file, '');
  const files = { config: smallModel, parameters, tokenizerJson };
  await assert.rejects(writeModelFolder(join(file, 'model'), files), { code: 'not-a-folder' });
  assert.equal(readFileSync(file, 'utf8'), '');
});
