/** The real program as a process: what only streams and signals of a real one can show. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageFile, packageVersion } from '../platform/nodejs/installation.ts';

const launcher = packageFile('bin', 'neuroshard.js');
const run = (...args: string[]) => spawnSync(process.execPath, [launcher, ...args], { encoding: 'utf8' });

test('the launcher runs the program: version, help, exit codes', () => {
  const version = run('--version');
  assert.deepEqual([version.status, version.stdout, version.stderr], [0, `${packageVersion()}\n`, '']);
  const unknown = run('dotcor', '--json');
  assert.equal(unknown.status, 2);
  assert.equal(JSON.parse(unknown.stdout).error.code, 'unknown-command');
  assert.match(unknown.stderr, /^neuroshard: unknown command 'dotcor' \(Did you mean doctor\?\)/);
});

test('doctor --json is one document alone on stdout', () => {
  const { stdout } = run('doctor', '--json');
  const { machine, findings } = JSON.parse(stdout);
  assert.equal(machine.nodeVersion, process.versions.node);
  assert.ok(findings.length >= 6);
});

test('a reader that closes early is no error', async () => {
  const child = spawn(process.execPath, [launcher, '--help'], { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.destroy();
  let stderr = '';
  child.stderr.on('data', (chunk) => (stderr += chunk));
  const [code] = await once(child, 'close');
  assert.deepEqual([code, stderr], [0, '']);
});

/** A benchmark that would take a minute: stopped half-way by the signal, and nothing is kept of it. */
test('an interrupt stops a command in its own time, with the exit code that shells expect', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'neuroshard-main-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const child = spawn(process.execPath, [launcher, 'bench', 'kernels', '--out', join(folder, 'out')], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let stderr = '';
  child.stderr.on('data', (chunk) => (stderr += chunk));
  await once(child.stdout, 'data');
  child.kill('SIGINT');
  const [code] = await once(child, 'close');
  assert.equal(code, 130);
  assert.match(stderr, /stopping \(Ctrl-C again: at once\)\nneuroshard: stopped by SIGINT\n$/);
  assert.throws(() => readFileSync(join(folder, 'out')), { code: 'ENOENT' });
});
