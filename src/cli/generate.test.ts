/** Text from real models on a real engine, through the whole command; only the streams are in memory. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { execute, smallDataset, smallModel } from '../../test/small-world.ts';
import { createLocalReplica } from '../diloco/local-replica.ts';
import { loadTokenizer, type Tokenizer } from '../genesis/tokenizer.ts';
import { initialParameter } from '../model/initialize.ts';
import { parameterList, wholeModel } from '../model/parameters.ts';
import { requireNetwork } from '../peer/network.ts';
import { replicaSettings } from '../peer/plan.ts';
import { defaultOuter, defaultTraining } from '../peer/policy.ts';
import { loadDataset } from '../platform/nodejs/dataset-files.ts';
import { packageFile } from '../platform/nodejs/installation.ts';
import { writeModelFolder } from '../platform/nodejs/model-folder.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { openSnapshotFiles } from '../platform/nodejs/snapshot-files.ts';
import { must } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import { clusterKey, clusterNetwork } from './cluster.ts';
import { register } from './generate.ts';

let folder: string;
let dataset: string;
let model: string;
let tokenizer: Tokenizer;
const weights = new Map(
  parameterList(smallModel, wholeModel(smallModel)).map(({ name, shape, kind }) => {
    const values = initialParameter(utf8('generate'), name, shape, smallModel);
    return [name, kind === 'matrix' ? values.map((value) => value * 8) : values];
  }),
);

before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'neuroshard-generate-'));
  dataset = await smallDataset(folder);
  const { tokenizerJson } = await loadDataset(dataset);
  tokenizer = loadTokenizer(tokenizerJson);
  model = join(folder, 'model');
  const parameters = (name: string) => must(weights.get(name), name);
  await writeModelFolder(model, { config: smallModel, parameters, tokenizerJson });
});
after(() => rmSync(folder, { recursive: true, force: true }));

const base = ['--prompt', 'the cat', '--threads', '1'];
const generate = (...argv: string[]) => execute(register, ['generate', ...base, ...argv]);

async function json(...argv: string[]) {
  const { code, stdout, stderr } = await generate('--json', ...argv);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as {
    prompt: string;
    text: string;
    tokens: number;
    finishReason: string;
    tokensPerSecond: number;
    seed: number;
  };
}

test('text is streamed piece by piece, and only text is on stdout', async () => {
  const argv = ['--model', model, '--seed', '5', '--max-tokens', '12'];
  const { code, pieces, stdout, stderr } = await generate(...argv);
  assert.equal(code, 0, stderr);
  assert.ok(pieces.length > 4, 'more than one write');
  assert.match(stderr, /^12 tokens, [\d.]+ tokens\/s, length, seed 5\n$/);
  const document = await json(...argv);
  assert.equal(stdout, document.text.endsWith('\n') ? document.text : `${document.text}\n`);
  assert.deepEqual(
    [document.prompt, document.tokens, document.finishReason, document.seed],
    ['the cat', 12, 'length', 5],
  );
  assert.ok(document.tokensPerSecond > 0);
  assert.notEqual((await json('--model', model, '--seed', '6', '--max-tokens', '12')).text, document.text);
});

test('a seed that is drawn is told, and writes the same again', async () => {
  const drawn = await json('--model', model, '--max-tokens', '6');
  const again = await json('--model', model, '--max-tokens', '6', '--seed', String(drawn.seed));
  assert.equal(again.text, drawn.text);
});

test('it ends at a stop text, which is not shown, and where the context ends', async () => {
  const greedy = ['--model', model, '--temperature', '0'];
  const whole = await json(...greedy, '--max-tokens', '1000');
  const promptTokens = 1 + tokenizer.encode('the cat').length;
  assert.deepEqual([whole.tokens, whole.finishReason], [smallModel.context - promptTokens, 'length']);
  const stop = whole.text.slice(4, 7);
  const stopped = await json(...greedy, '--max-tokens', '1000', '--stop', 'nowhere', '--stop', stop);
  assert.equal(stopped.text, whole.text.slice(0, whole.text.indexOf(stop)));
  assert.equal(stopped.finishReason, 'stop');
  assert.ok(stopped.tokens < whole.tokens);
});

test('Ctrl-C ends the stream between two tokens, on a line of its own', async () => {
  const argv = ['generate', ...base, '--model', model, '--max-tokens', '40', '--seed', '1'];
  const { code, stdout, stderr, pieces } = await execute(register, argv, { interruptAfter: 3 });
  assert.equal(code, 130);
  assert.ok(pieces.length <= 5 && stdout.endsWith('\n'));
  assert.equal(stderr, 'neuroshard: stopped by SIGINT\n');
});

test("a node's newest snapshot writes what its replica would", async () => {
  const data = join(folder, 'node');
  const { hash } = await loadDataset(dataset);
  const training = { ...defaultTraining(smallModel), batch: 2, sequence: 32 };
  const outer = defaultOuter('int8', 'default');
  const shared = { seed: 9, model: smallModel, datasetHash: hash, training, outer };
  const document = clusterNetwork({ ...shared, keys: [clusterKey(9, 0)] });
  const network = requireNetwork(document, 'test');
  const replica = await createLocalReplica({
    engine: createNativeEngine({ threads: 1 }),
    ...replicaSettings(network),
  });
  const files = await openSnapshotFiles(join(data, 'snapshots'));
  await files.write({ replica: await replica.snapshot(), writes: { startMs: 0, bytes: 0 } });
  const prompt = [tokenizer.endOfText, ...tokenizer.encode('the cat')];
  const expected = await replica.generate({ prompt, tokensMax: 10, temperature: 0, seed: 1 });
  await replica.close();

  const argv = ['--data', data, '--dataset', dataset, '--temperature', '0', '--max-tokens', '10'];
  const missing = await generate(...argv, '--json');
  assert.match(JSON.parse(missing.stdout).error.message, /network\.json: no such file/);
  writeFileSync(join(data, 'network.json'), document);
  const { text, tokens } = await json(...argv);
  assert.deepEqual([text, tokens], [tokenizer.decode(expected), 10]);

  const other = join(folder, 'other.json');
  writeFileSync(other, clusterNetwork({ ...shared, seed: 10, keys: [clusterKey(9, 0)] }));
  const mismatch = await generate(...argv, '--network', other, '--json');
  assert.equal(JSON.parse(mismatch.stdout).error.code, 'snapshot-mismatch');
  const empty = join(folder, 'empty');
  mkdirSync(join(empty, 'snapshots'), { recursive: true });
  const none = await generate('--data', empty, '--network', other, '--json');
  assert.equal(JSON.parse(none.stdout).error.code, 'no-snapshot');
});

test('bad input is one line and a code', async () => {
  const broken = join(folder, 'broken');
  mkdirSync(broken);
  writeFileSync(join(broken, 'config.json'), readFileSync(join(model, 'config.json')));
  const cases: [string[], number, string][] = [
    [[], 2, 'missing-model'],
    [['--model', model, '--data', folder], 2, 'missing-model'],
    [['--model', join(folder, 'nowhere')], 1, 'not-found'],
    [['--model', broken], 1, 'not-found'],
    [['--model', model, '--prompt', 'x '.repeat(100)], 1, 'prompt-too-long'],
    [['--model', model, '--stop', ''], 2, 'bad-stop'],
    [['--model', model, '--temperature', '-1'], 2, 'out-of-range'],
    [['--model', model, '--top-p', '0'], 2, 'out-of-range'],
    [['--model', model, '--max-tokens', 'many'], 2, 'bad-number'],
  ];
  for (const [argv, code, error] of cases) {
    const failed = await generate(...argv, '--json');
    assert.equal(failed.code, code, `${argv}: ${failed.stderr}`);
    assert.equal(JSON.parse(failed.stdout).error.code, error, failed.stderr);
    assert.equal(failed.stderr.trimEnd().split('\n').length, 1);
  }
});

test('a damaged file of a model is one line and a code, whichever file it is', async () => {
  const weightsFile = readFileSync(join(model, 'model.safetensors'));
  const headerBytes = Number(weightsFile.readBigUInt64LE(0));
  const changed = (at: number, ...bytes: number[]) => {
    const copy = Buffer.from(weightsFile);
    copy.set(bytes, at);
    return copy;
  };
  const flipped = (at: number, bit: number) => changed(at, weightsFile[at]! ^ bit);
  const config = JSON.parse(readFileSync(join(model, 'config.json'), 'utf8'));
  const tokenizerText = readFileSync(join(model, 'tokenizer.json'), 'utf8');
  const cases: [string, string | Uint8Array, string][] = [
    ['model.safetensors', flipped(7, 0x40), 'safetensors-header'],
    ['model.safetensors', flipped(8, 0x80), 'safetensors-header'],
    ['model.safetensors', changed(8 + headerBytes, 0, 0, 0xc0, 0x7f), 'not-finite'],
    ['model.safetensors', weightsFile.subarray(0, weightsFile.length - 4), 'safetensors-truncated'],
    ['model.safetensors', weightsFile.subarray(0, headerBytes), 'safetensors-truncated'],
    ['model.safetensors', '', 'safetensors-truncated'],
    ['config.json', '{"vocab_size":', 'bad-model-config'],
    ['config.json', '[]', 'bad-model-config'],
    ['config.json', JSON.stringify({ ...config, hidden_size: 0 }), 'bad-model-config'],
    ['config.json', JSON.stringify({ ...config, num_hidden_layers: 9 }), 'missing-tensor'],
    ['tokenizer.json', tokenizerText.slice(0, 2000), 'tokenizer-invalid'],
    ['tokenizer.json', '{}', 'tokenizer-invalid'],
  ];
  for (const [index, [file, content, expected]] of cases.entries()) {
    const damaged = join(folder, `damaged-${index}`);
    cpSync(model, damaged, { recursive: true });
    writeFileSync(join(damaged, file), content);
    const failed = await generate('--model', damaged, '--json');
    assert.equal(failed.code, 1, failed.stderr);
    assert.equal(JSON.parse(failed.stdout).error.code, expected, failed.stderr);
    assert.match(failed.stderr, new RegExp(`^neuroshard: .*damaged-${index}/.*\\n$`));
    assert.deepEqual(readdirSync(damaged).sort(), readdirSync(model).sort());
  }
});

test('as a program: a reader that has had enough is no error', async () => {
  const program = packageFile('bin', 'neuroshard.js');
  const argv = [program, 'generate', ...base, '--model', model, '--max-tokens', '40'];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (chunk) => (stderr += chunk));
  await once(child.stdout, 'data');
  child.stdout.destroy();
  const [code] = await once(child, 'close');
  assert.equal(code, 0);
  assert.match(stderr, /^(?:40 tokens.*\n)?$/);
});
