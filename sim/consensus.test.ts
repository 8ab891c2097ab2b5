/** A bounded number of seeds of the consensus scenario, its canary, and that a seed replays exactly. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { installSha256 } from '../src/std/hash.ts';
import { consensusCanary, consensusScenario } from './consensus/scenario.ts';
import { runSeed } from './runner.ts';

installSha256((bytes) => new Uint8Array(createHash('sha256').update(bytes).digest()));

const seeds = 60;

test(`${seeds} storms: one decision at a height, nothing twice, progress and catch-up in the calm`, async () => {
  const sums = { rounds: 0, epochs: 0, jumps: 0, accusations: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const report = await runSeed(consensusScenario, seed);
    assert.ok(report.ok, report.ok ? '' : `${report.detail}\nreplay: ${report.replay}`);
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += report.result.numbers[name]!;
  }
  assert.ok(sums.rounds > 4 * seeds, 'rounds were decided in the storms too, not only after them');
  assert.ok(sums.epochs > 4 * seeds, 'members changed');
  assert.ok(sums.jumps > 0, 'somebody was away for longer than epochs are kept');
  assert.ok(sums.accusations > 0, 'somebody was caught contradicting itself');
});

test('canary: f + 1 colluding twins break agreement for some seed, and the replay is said', async () => {
  const reports = [];
  for (let seed = 1; seed <= 12; seed++) reports.push(await runSeed(consensusCanary, seed));
  const broken = reports.filter((report) => !report.ok && report.property === 'agreement');
  assert.ok(broken.length > 0, 'the checkers are blind');
  for (const report of broken) {
    assert.ok(!report.ok);
    assert.equal(report.replay, `npm run sim -- --scenario consensus-canary --seed ${report.seed}`);
    assert.deepEqual(await runSeed(consensusCanary, report.seed), report);
  }
});

test('a seed replays message for message', async () => {
  const first = await runSeed(consensusScenario, 7);
  const second = await runSeed(consensusScenario, 7);
  assert.ok(first.ok && first.result.numbers.messages! > 100);
  assert.deepEqual(second, first);
});
