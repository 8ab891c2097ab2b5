/** `node start` as a process, where it cannot start: it says why in one line and touches nothing. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { presets } from '../model/config.ts';
import { defaultOuter, defaultTraining } from '../peer/policy.ts';
import { lockFolder } from '../platform/nodejs/folder-lock.ts';
import { packageFile } from '../platform/nodejs/installation.ts';
import { clusterKey, clusterNetwork } from './cluster.ts';

const launcher = packageFile('bin', 'neuroshard.js');
const root = mkdtempSync(join(tmpdir(), 'neuroshard-start-'));
after(() => rmSync(root, { recursive: true, force: true }));

const manifest = (seed: number) =>
  clusterNetwork({
    seed,
    model: presets.tiny,
    datasetHash: '0'.repeat(64),
    training: defaultTraining(presets.tiny),
    outer: defaultOuter('int8', 'default'),
    keys: [clusterKey(seed, 0)],
  });

function start(...args: string[]) {
  const all = [launcher, 'node', 'start', ...args, '--local', '--no-api', '--json'];
  const { status, stdout, stderr } = spawnSync(process.execPath, all, { encoding: 'utf8' });
  assert.doesNotMatch(stderr, /\n {4}at /, 'one line, no stack');
  return { status, code: JSON.parse(stdout).error.code as string, stderr };
}

test('without --network the folder says which; without either, the command line is wrong', () => {
  const folder = mkdtempSync(join(root, 'data-'));
  const none = start('--data', folder);
  assert.deepEqual([none.status, none.code], [2, 'missing-network']);
  assert.deepEqual(readdirSync(folder), []);
  writeFileSync(join(folder, 'network.json'), '{"body": 1}');
  const broken = start('--data', folder);
  assert.deepEqual([broken.status, broken.code], [1, 'bad-network']);
  writeFileSync(join(folder, 'network.json'), ' '.repeat(2 ** 20));
  assert.equal(start('--data', folder).code, 'too-large');
});

test('a folder that belongs to another network is left as it is', () => {
  const folder = mkdtempSync(join(root, 'data-'));
  const kept = join(folder, 'network.json');
  const other = join(root, 'other.json');
  writeFileSync(kept, manifest(1));
  writeFileSync(other, manifest(2));
  const { status, code, stderr } = start('--data', folder, '--network', other);
  assert.deepEqual([status, code], [1, 'other-network']);
  assert.match(stderr, /--data/);
  assert.equal(readFileSync(kept, 'utf8'), manifest(1));
});

test('a node whose folder is in use says so and changes nothing in it', () => {
  const network = join(root, 'network.json');
  const folder = mkdtempSync(join(root, 'data-'));
  writeFileSync(network, manifest(1));
  const release = lockFolder(folder);
  const args = ['node', 'start', '--network', network, '--data', folder, '--local', '--no-api'];
  const { status, stderr } = spawnSync(process.execPath, [launcher, ...args], { encoding: 'utf8' });
  release();
  assert.ok(status !== null && status > 0, stderr);
  assert.match(stderr, /another node is running in .*data-/);
  assert.doesNotMatch(stderr, /\n {4}at /, 'one line, no stack');
  assert.deepEqual(readdirSync(folder), ['lock']);
});
