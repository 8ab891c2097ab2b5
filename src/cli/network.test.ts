import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { execute, smallDataset, temporaryFolder } from '../../test/small-world.ts';
import { keyPairFrom } from '../identity/keys.ts';
import { requireNetwork } from '../peer/network.ts';
import { toHex } from '../std/bytes.ts';
import { register } from './network.ts';

const run = (...argv: string[]) => execute(register, ['network', ...argv]);
const memberKeys = [1, 2, 3, 4].map((byte) => toHex(keyPairFrom(new Uint8Array(32).fill(byte)).publicKey));

test('without members, whoever creates the network is the only one', async (t) => {
  const folder = temporaryFolder(t);
  const out = join(folder, 'network.json');
  const data = join(folder, 'data');
  const made = await run('create', '--name', 'books', '--data', data, '--out', out, '--json');
  assert.equal(made.code, 0, made.stderr);
  const key = JSON.parse((await run('key', '--data', data, '--json')).stdout);
  const network = requireNetwork(readFileSync(out, 'utf8'), out);
  assert.deepEqual(
    network.members.map((member) => [member.nodeId, toHex(member.publicKey), member.weight]),
    [[key.nodeId, key.publicKey, 1]],
  );
  assert.deepEqual([network.training.innerSteps, network.model.width], [500, 128]);
  const { networkId, tolerance, publicKey } = JSON.parse(made.stdout);
  assert.equal(networkId, toHex(network.networkId));
  assert.equal(publicKey, key.publicKey);
  assert.deepEqual(tolerance, { members: 1, failures: 0, contributions: 1, hostile: 0 });
  const again = await run('create', '--name', 'books', '--data', data, '--out', `${out}2`, '--json');
  assert.notEqual(JSON.parse(again.stdout).networkId, networkId, 'each network has a seed of its own');
});

test('members, policy, dataset and addresses are those asked for; info shows them', async (t) => {
  const folder = temporaryFolder(t);
  const out = join(folder, 'network.json');
  const dataset = await smallDataset(folder);
  const options = ['--data', join(folder, 'data'), '--dataset', dataset, '--out', out, '--inner-steps', '30'];
  const policy = ['--aggregator', 'median', '--compression', 'sparse', '--batch', '3', '--total-steps', '99'];
  const address = '/ip4/127.0.0.1/tcp/4001';
  const members = memberKeys.flatMap((key) => ['--member', key]);
  const made = await run('create', '--name', 'x', ...options, ...policy, ...members, '--bootstrap', address);
  assert.equal(made.code, 0, made.stderr);
  assert.match(made.stdout, /members {7}4: 1 may fail or lie/);
  const info = await run('info', out, '--json');
  const shown = JSON.parse(info.stdout);
  assert.deepEqual(
    shown.members.map((member: { publicKey: string }) => member.publicKey),
    memberKeys,
  );
  const { innerSteps, batch, totalSteps } = shown.training;
  assert.deepEqual([innerSteps, batch, totalSteps], [30, 3, 99]);
  assert.deepEqual(shown.outer, {
    compression: 'sparse',
    aggregator: 'median',
    learningRate: 1,
    momentum: 0,
  });
  assert.deepEqual(shown.bootstrap, [address]);
  assert.deepEqual(shown.tolerance, { members: 4, failures: 1, contributions: 4, hostile: 1 });
});

test('stages are as many as asked for, or as few as the memory of a node allows', async (t) => {
  const folder = temporaryFolder(t);
  const members = memberKeys.flatMap((key) => ['--member', key]);
  let count = 0;
  const create = async (...more: string[]) => {
    const out = join(folder, `${count++}.json`);
    const base = ['create', '--name', 'x', '--data', join(folder, 'data'), '--out', out, '--json'];
    const made = await run(...base, ...more);
    return { code: made.code, out, json: JSON.parse(made.stdout) };
  };
  const three = await create('--stages', '3', '--microbatches', '8', '--activations', 'int8', ...members);
  assert.equal(three.code, 0);
  const { stages, microbatches, activations } = three.json.training;
  assert.deepEqual([stages, microbatches, activations], [3, 8, 'int8']);
  const shown = (await run('info', three.out)).stdout;
  assert.match(shown, /stage 1 +layers 0 to \d+, .* parameters, about .*B, 2 members/);
  assert.match(shown, /stage 3 +layer.*, 1 member$/m);
  const { stages: cut, parameters } = JSON.parse((await run('info', three.out, '--json')).stdout);
  const held = cut.reduce((sum: number, stage: { parameters: number }) => sum + stage.parameters, 0);
  assert.equal(held, parameters);
  const heaviest = Math.max(...cut.map((stage: { memoryBytes: number }) => stage.memoryBytes));
  const step = ['--microbatches', '8'];
  const fitting = await create('--node-memory', String(heaviest), ...step, ...members);
  assert.equal(fitting.json.training.stages, 3);
  const roomy = await create('--node-memory', '100GB', ...step, ...members);
  assert.equal(roomy.json.training.stages, 1);
  const tight = await create('--node-memory', '1MB', ...members);
  assert.deepEqual([tight.code, tight.json.error.code], [1, 'no-cut-fits']);
  for (const wrong of [
    ['--stages', '3'],
    ['--stages', '60', ...members],
  ])
    assert.deepEqual((await create(...wrong)).json.error.code, 'bad-stages');
});

test('an existing manifest is kept, unless forced', async (t) => {
  const folder = temporaryFolder(t);
  const out = join(folder, 'network.json');
  writeFileSync(out, 'precious');
  const create = ['create', '--name', 'x', '--data', join(folder, 'data'), '--out', out];
  const refused = await run(...create, '--json');
  assert.equal(refused.code, 1);
  assert.equal(JSON.parse(refused.stdout).error.code, 'already-exists');
  assert.equal(readFileSync(out, 'utf8'), 'precious');
  assert.equal((await run(...create, '--force')).code, 0);
  assert.equal(requireNetwork(readFileSync(out, 'utf8'), out).name, 'x');
});

test('bad input is one line, and nothing is written', async (t) => {
  const folder = temporaryFolder(t);
  const out = join(folder, 'network.json');
  const base = ['create', '--data', join(folder, 'data'), '--out', out, '--json'];
  const key = memberKeys[0]!;
  const cases: [string[], number, string][] = [
    [['--name', ''], 2, 'bad-name'],
    [['--name', 'n'.repeat(65)], 2, 'bad-name'],
    [['--name', 'x', '--preset', 'smal'], 2, 'unknown-preset'],
    [['--name', 'x', '--aggregator', 'meen'], 2, 'unknown-aggregator'],
    [['--name', 'x', '--compression', 'int9'], 2, 'unknown-compression'],
    [['--name', 'x', '--member', '02ab'], 2, 'bad-member'],
    [['--name', 'x', '--member', key.replace(/^0[23]/, '05')], 2, 'bad-member'],
    [['--name', 'x', '--member', key, '--member', key.toUpperCase()], 2, 'bad-member'],
    [['--name', 'x', '--bootstrap', 'example.org:4001'], 2, 'bad-address'],
    [['--name', 'x', '--dataset', join(folder, 'nowhere')], 1, 'not-found'],
    [[], 2, 'missing-mandatory-option-value'],
  ];
  for (const [more, code, error] of cases) {
    const failed = await run(...base, ...more);
    assert.equal(failed.code, code, `${more}: ${failed.stderr}`);
    assert.equal(JSON.parse(failed.stdout).error.code, error, failed.stderr);
    assert.equal(failed.stderr.trimEnd().split('\n').length, 1);
  }
  assert.throws(() => readFileSync(out), { code: 'ENOENT' });
  const hint = await run('create', '--name', 'x', '--preset', 'smal');
  assert.match(hint.stderr, /did you mean 'small'/);
});

test('info refuses what is no manifest', async (t) => {
  const folder = temporaryFolder(t);
  const out = join(folder, 'network.json');
  assert.equal((await run('create', '--name', 'x', '--data', join(folder, 'data'), '--out', out)).code, 0);
  const text = readFileSync(out, 'utf8');
  const cases: [string, string][] = [
    ['', 'bad-network'],
    ['{}', 'bad-network'],
    [text.replace('"name": "x"', '"name": "y"'), 'bad-signature'],
    [text.replace('"innerSteps": 500', '"innerSteps": 0'), 'bad-network'],
    [' '.repeat(300_000), 'too-large'],
  ];
  for (const [content, code] of cases) {
    writeFileSync(out, content);
    const failed = await run('info', out, '--json');
    assert.equal(failed.code, 1);
    assert.equal(JSON.parse(failed.stdout).error.code, code);
  }
  assert.equal((await run('info', join(folder, 'nowhere'))).code, 1);
  assert.equal((await run('info')).code, 2);
});
