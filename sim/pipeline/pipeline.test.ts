/** A bounded number of seeds of the pipeline scenario, and that a seed replays exactly. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { installSha256 } from '../../src/std/hash.ts';
import { runSeed } from '../runner.ts';
import { pipelineScenario } from './scenario.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const seeds = 8;

test(`${seeds} seeds: every gradient once in every stage, nothing lost in silence, progress`, async () => {
  const totals = { steps: 0, failovers: 0, evidence: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const report = await runSeed(pipelineScenario, seed);
    assert.ok(report.ok, report.ok ? '' : `seed ${seed}: ${report.detail}\nreplay: ${report.replay}`);
    totals.steps += report.result.numbers.steps!;
    totals.failovers += report.result.numbers.failovers!;
    totals.evidence += report.result.numbers.evidence!;
  }
  assert.ok(totals.steps > 5 * seeds, 'Drivers made steps in the storms, too');
  assert.ok(totals.failovers > 0, 'nobody was ever given up');
  assert.ok(totals.evidence > 5 * seeds, 'stages keep what others need to make their steps again');
});

test('a seed replays message for message', async () => {
  const first = await runSeed(pipelineScenario, 6);
  const second = await runSeed(pipelineScenario, 6);
  assert.ok(first.ok && first.result.numbers.messages! > 100);
  assert.deepEqual(second, first);
});
