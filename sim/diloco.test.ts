/** A bounded number of seeds of the diloco scenario, its canary, and that a seed replays exactly. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { installSha256 } from '../src/std/hash.ts';
import { dilocoCanary, dilocoScenario, stagesScenario } from './diloco/scenario.ts';
import { runSeed } from './runner.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

/** Each eighth has no faults and a plain loop as its oracle. */
const seeds = 8;

test(`${seeds} seeds: one history, nothing counted twice, nothing lost, progress and catch-up`, async () => {
  let rounds = 0;
  for (let seed = 1; seed <= seeds; seed++) {
    const report = await runSeed(dilocoScenario, seed);
    assert.ok(report.ok, report.ok ? '' : `seed ${seed}: ${report.detail}\nreplay: ${report.replay}`);
    rounds += report.result.numbers.rounds!;
  }
  assert.ok(rounds > 4 * seeds, 'rounds were closed in the storms too, not only after them');
});

test('4 seeds of two stages: one history for each cohort, progress under kills and catch-up', async () => {
  for (let seed = 1; seed <= 4; seed++) {
    const report = await runSeed(stagesScenario, seed);
    assert.ok(report.ok, report.ok ? '' : `seed ${seed}: ${report.detail}\nreplay: ${report.replay}`);
    assert.ok(report.result.numbers.rounds! > 4);
  }
});

test('canary: f + 1 colluding twins fork the state for some seed, and the replay is said', async () => {
  const reports = [];
  for (let seed = 1; seed <= 2; seed++) reports.push(await runSeed(dilocoCanary, seed));
  const broken = reports.filter((report) => !report.ok && report.property === 'agreement');
  assert.ok(broken.length > 0, 'the checkers are blind');
  for (const report of broken) {
    assert.ok(!report.ok);
    assert.equal(report.replay, `npm run sim -- --scenario diloco-canary --seed ${report.seed}`);
  }
});

test('a seed replays message for message', async () => {
  const first = await runSeed(dilocoScenario, 1);
  const second = await runSeed(dilocoScenario, 1);
  assert.ok(first.ok && first.result.numbers.messages! > 100);
  assert.deepEqual(second, first);
});
