/** The baseline on a real engine: it learns, repeats itself, keeps what it trained, and refuses what is wrong. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { execute, smallDataset, smallModel, temporaryFolder } from '../../test/small-world.ts';
import { heldOutBatches } from '../genesis/sampler.ts';
import { wholeModel } from '../model/parameters.ts';
import { buildEvaluationGraph } from '../model/stage-graph.ts';
import { loadDataset } from '../platform/nodejs/dataset-files.ts';
import { packageFile } from '../platform/nodejs/installation.ts';
import { readModelFolder } from '../platform/nodejs/model-folder.ts';
import { createNativeEngine } from '../platform/nodejs/onnx-native.ts';
import { register } from './train.ts';
import { type AloneOptions, trainAlone } from './train-run.ts';

let dataset: string;
let folder: string;
after(() => rmSync(folder, { recursive: true, force: true }));
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'neuroshard-train-'));
  dataset = await smallDataset(folder);
});

function options(change: Partial<AloneOptions> = {}): AloneOptions {
  return {
    model: smallModel,
    nodes: 2,
    steps: 12,
    stepsDefault: 1,
    seed: 3,
    dataset,
    batch: 2,
    learningRate: 0.01,
    innerSteps: 5,
    heldOutBatches: 2,
    provider: 'cpu',
    threads: 1,
    ...change,
  };
}
const signal = new AbortController().signal;

test('it learns, and one seed always gives the same curve', async () => {
  const [first, second] = [await trainAlone(options(), { signal }), await trainAlone(options(), { signal })];
  const { report, settings } = first;
  assert.deepEqual(
    report.curve.map(({ step, tokens }) => [step, tokens]),
    [5, 10, 12].map((step) => [step, step * 2 * 2 * 48]),
  );
  assert.ok(Math.abs(report.initialHeldOutLoss! - Math.log(320)) < 0.1);
  assert.ok(report.finalHeldOutLoss! < report.initialHeldOutLoss! - 0.3, `${report.finalHeldOutLoss}`);
  assert.ok(report.tokensPerSecond > 0);
  assert.deepEqual(second.report.curve, report.curve);
  assert.equal(settings.totalSteps, 12);
  const other = await trainAlone(options({ seed: 4 }), { signal });
  assert.notDeepEqual(other.report.curve, report.curve);
});

test('the model it keeps is the one it ended with', async () => {
  const out = join(folder, 'kept');
  const { report } = await trainAlone(options({ out }), { signal });
  const model = await readModelFolder(out);
  assert.deepEqual(model.config, smallModel);
  assert.deepEqual(model.endTokens, [model.beginToken]);
  const shape = { batch: 2, sequence: 48 };
  const held = await heldOutBatches(await loadDataset(dataset), { ...shape, count: 2 });
  const engine = createNativeEngine({ threads: 1 });
  const program = await engine.compile(buildEvaluationGraph(smallModel, wholeModel(smallModel), shape));
  let sum = 0;
  for (const { tokens, labels } of held) {
    const loss = new Float32Array(1);
    await program.run({ ...Object.fromEntries(model.parameters), tokens, labels }, { loss });
    sum += loss[0]!;
  }
  await engine.close();
  assert.equal(sum / held.length, report.finalHeldOutLoss);
});

test('asked to stop, it reports and keeps what it has', async () => {
  const out = join(folder, 'stopped');
  const controller = new AbortController();
  const onStep = (step: number) => {
    if (step === 3) controller.abort();
  };
  const { report } = await trainAlone(options({ out }), { signal: controller.signal, onStep });
  assert.deepEqual([report.steps, report.interrupted], [3, true]);
  assert.equal((await readModelFolder(out)).parameters.size, 21);
});

test('a model that cannot be written costs the model, not the report', async (t) => {
  const out = join(temporaryFolder(t), 'gone');
  const onStep = () => {
    rmSync(out, { recursive: true, force: true });
    writeFileSync(out, 'a file has taken its place');
  };
  const { report, notKept } = await trainAlone(options({ out, steps: 1 }), { signal, onStep });
  assert.equal(report.steps, 1);
  assert.equal(notKept?.code, 'not-a-folder');
});

test('asked to stop before the first step, it keeps nothing', async () => {
  const out = join(folder, 'nothing');
  const stopped = trainAlone(options({ out }), { signal: AbortSignal.abort(new Error('enough')) });
  await assert.rejects(stopped, /enough/);
  assert.ok(!existsSync(join(out, 'model.safetensors')));
});

test('tokens become whole steps', async () => {
  const { steps: _, ...rest } = options({ heldOutBatches: 0 });
  const { report } = await trainAlone({ ...rest, tokens: 3 * 2 * 2 * 48 + 1 }, { signal });
  assert.deepEqual([report.steps, report.tokens], [4, 4 * 2 * 2 * 48]);
});

test('bad inputs are coded errors, before any training', async () => {
  const run = (change: Partial<AloneOptions>) => trainAlone(options(change), { signal });
  await assert.rejects(run({ model: { ...smallModel, vocabulary: 100 } }), { code: 'wrong-vocabulary' });
  await assert.rejects(run({ dataset: join(folder, 'nowhere') }), { code: 'not-found' });
  await assert.rejects(run({ batch: 1, model: { ...smallModel, context: 4096 } }), {
    code: 'shard-too-short',
  });
  const file = join(folder, 'file');
  writeFileSync(file, '');
  await assert.rejects(run({ out: join(file, 'model') }), { code: 'not-a-folder' });
  const taken = join(folder, 'taken');
  mkdirSync(taken);
  writeFileSync(join(taken, 'model.safetensors'), 'precious');
  await assert.rejects(run({ out: taken }), { code: 'already-exists', message: /--force/ });
  assert.equal(readFileSync(join(taken, 'model.safetensors'), 'utf8'), 'precious');
  await trainAlone(options({ out: taken, force: true, steps: 1, heldOutBatches: 0 }), { signal });
  assert.equal((await readModelFolder(taken)).config.width, 32);
});

test('a corrupted shard ends it with the name of the file', async (t) => {
  const damaged = await smallDataset(temporaryFolder(t));
  for (let index = 0; existsSync(join(damaged, 'shards', shardName(index))); index++) {
    const file = join(damaged, 'shards', shardName(index));
    const bytes = readFileSync(file);
    bytes[10]! ^= 1;
    writeFileSync(file, bytes);
  }
  await assert.rejects(trainAlone(options({ dataset: damaged }), { signal }), {
    code: 'shard-corrupt',
    message: /shards.\d{5}\.bin/,
  });
});

function shardName(index: number): string {
  return `${String(index).padStart(5, '0')}.bin`;
}

test('wrong options are usage errors', async () => {
  const codes: [string, string][] = [
    ['train --preset tinny', 'unknown-preset'],
    ['train --steps 5 --tokens 5', 'bad-options'],
    ['train --steps 0', 'out-of-range'],
    ['train --learning-rate 0', 'out-of-range'],
    ['train --setps 3', 'unknown-option'],
  ];
  for (const [line, code] of codes) {
    const execution = await execute(register, [...line.split(' '), '--json']);
    assert.equal(execution.code, 2, line);
    assert.equal(JSON.parse(execution.stdout).error.code, code);
  }
  const { stderr } = await execute(register, ['train', '--preset', 'tinny']);
  assert.match(stderr, /did you mean 'tiny'/);
  const help = await execute(register, ['train', '--help']);
  assert.match(help.stdout, /Examples:\n {2}neuroshard train --steps 200/);
});

test('as a program: one document on stdout after an interrupt, and the exit code of the signal', async (t) => {
  const out = join(temporaryFolder(t), 'model');
  const args = ['train', '--dataset', dataset, '--nodes', '1', '--batch', '1', '--steps', '100000', '--json'];
  const child = spawn(
    process.execPath,
    [packageFile('bin', 'neuroshard.js'), ...args, '--held-out-batches', '0', '--out', out],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  let stdout = '';
  child.stdout.on('data', (chunk) => (stdout += chunk));
  await once(child.stderr, 'data');
  child.kill('SIGINT');
  const [code] = await once(child, 'close');
  assert.equal(code, 130);
  const report = JSON.parse(stdout);
  assert.equal(report.interrupted, true);
  assert.equal(report.tokens, report.steps * 128);
  assert.equal(report.settings.preset, 'tiny');
  assert.equal((await readModelFolder(out)).config.vocabulary, 2048);
});
