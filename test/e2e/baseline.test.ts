/** `train` and `swarm` as programs: the same weights to begin with, the same batches, hence the same first losses. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { packageFile } from '../../src/platform/nodejs/installation.ts';

async function run(...argv: string[]) {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [packageFile('bin', 'neuroshard.js'), ...argv, '--json'],
    { maxBuffer: 16 * 1024 * 1024 },
  );
  return JSON.parse(stdout);
}

function assertNear(actual: number, expected: number, what: string): void {
  // Nodes may compute with another number of threads, which rounds differently.
  assert.ok(Math.abs(actual - expected) < 1e-4, `${what}: ${actual}, ${expected}`);
}

test('two nodes begin where the baseline begins, and their first step is its first step', async () => {
  const same = [
    '--nodes',
    '2',
    '--inner-steps',
    '1',
    '--seed',
    '5',
    '--batch',
    '2',
    '--held-out-batches',
    '2',
  ];
  const swarm = await run('swarm', ...same, '--rounds', '1');
  const alone = await run('train', ...same, '--steps', '1');
  assertNear(alone.initialHeldOutLoss, swarm.initialHeldOutLoss, 'held-out loss of the initial weights');
  assertNear(alone.curve[0].trainingLoss, swarm.rounds[0].trainingLoss, 'loss of the first step');
  assert.equal(alone.tokens, swarm.tokens);
});
