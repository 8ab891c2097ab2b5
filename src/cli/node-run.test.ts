/** `node start` as a process, where its folder is taken: it ends before it touches anything. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
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

test('a node whose folder is in use says so and changes nothing in it', () => {
  const network = join(root, 'network.json');
  const folder = mkdtempSync(join(root, 'data-'));
  writeFileSync(
    network,
    clusterNetwork({
      seed: 1,
      model: presets.tiny,
      datasetHash: '0'.repeat(64),
      training: defaultTraining(presets.tiny),
      outer: defaultOuter('int8', 'default'),
      keys: [clusterKey(1, 0)],
    }),
  );
  const release = lockFolder(folder);
  const args = ['node', 'start', '--network', network, '--data', folder, '--local', '--no-api'];
  const { status, stderr } = spawnSync(process.execPath, [launcher, ...args], { encoding: 'utf8' });
  release();
  assert.ok(status !== null && status > 0, stderr);
  assert.match(stderr, /another node is running in .*data-/);
  assert.doesNotMatch(stderr, /\n {4}at /, 'one line, no stack');
  assert.deepEqual(readdirSync(folder), ['lock']);
});
