/** Who comes to a network of two stages later, or comes to cheat it; as real processes. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { packageFile, programFile } from '../../src/platform/nodejs/installation.ts';
import { agreedHashes, createHarness, type Harness } from './cluster-harness.ts';

const lastRound = (harness: Harness, name: string) => harness.rounds(name).at(-1)?.round ?? -1;
const warned = (harness: Harness, name: string, code: string) =>
  harness.events(name).some((event) => event.type === 'warning' && event.code === code);
const launcher = packageFile('bin', 'neuroshard.js');

/** The code of a command that fails. */
function failure(...args: string[]): string {
  const { stdout, stderr } = spawnSync(process.execPath, [launcher, ...args, '--json'], { encoding: 'utf8' });
  assert.doesNotMatch(stderr, /\n {4}at /, 'one line, no stack');
  return JSON.parse(stdout).error.code;
}

test('a newcomer takes the stage with fewer replicas, serves it, and has it again after kill -9', async () => {
  const harness = await createHarness({
    nodes: 3,
    nodeArgs: ['--checkpoint-seconds', '1'],
    training: { stages: 2, microbatches: 2 },
  });
  try {
    harness.startAll();
    await harness.until('a round closes', () => lastRound(harness, 'node-1') >= 0);
    const like = harness.cluster.nodes[0]!;
    const home = join(like.directory, '..', 'late');
    const args = like.spec.args.map((arg, i, all) => {
      if (all[i - 1] === '--data') return home;
      return all[i - 1] === '--listen' ? '/ip4/127.0.0.1/tcp/0' : arg;
    });
    assert.equal(failure(...args, '--memory', '1MB'), 'no-stage-fits');
    const spec = { name: 'late', program: programFile('src/cli/main'), args };
    harness.startSpec(spec);
    const stages = () => harness.events('late').flatMap((event) => (event.type === 'started' ? event : []));
    const steps = () => harness.events('late').filter(({ type }) => type === 'step').length;
    await harness.until('it closes rounds', () => harness.rounds('late').length >= 2);
    assert.deepEqual([stages()[0]!.stage.index, stages()[0]!.stage.count], [1, 2]);
    await harness.until('it works for a Driver', () => steps() > 0);
    const { nodeId } = stages()[0]!;
    const counts = () => harness.rounds('node-2').some((round) => round.contributions.includes(nodeId));
    await harness.until('its contribution counts in its stage', counts);
    agreedHashes(harness, ['node-2', 'late']);
    const wrote = () => harness.events('late').some(({ type }) => type === 'checkpoint');
    await harness.until('it has a snapshot', wrote);
    await harness.group.get('late')!.kill();
    // Of another stage nothing is restored.
    writeFileSync(join(home, 'stage.json'), '{"stage":0}');
    assert.equal(failure(...args), 'snapshot-mismatch');
    assert.equal(failure('generate', '--data', home, '--prompt', 'x'), 'not-whole-model');
    writeFileSync(join(home, 'stage.json'), '{"stage":1}');
    harness.startSpec(spec);
    await harness.until('it goes on', () => harness.rounds('late').length >= 1);
    assert.equal(stages()[0]!.stage.index, 1);
    assert.ok(harness.events('late').some(({ type }) => type === 'restored'));
    agreedHashes(harness, ['node-2', 'late']);
  } finally {
    await harness.close();
  }
});

test('a Driver that flips labels is convicted by all, and its cohort trains on', async () => {
  const harness = await createHarness({
    nodes: 5,
    attackers: 1,
    attack: { name: 'label-flip' },
    training: { stages: 2, microbatches: 2 },
  });
  const honest = ['node-1', 'node-2', 'node-3', 'node-4'];
  try {
    harness.startAll();
    await harness.until('everybody convicts it', () =>
      honest.every((name) => warned(harness, name, 'driver-fraud')),
    );
    await harness.until('it learns that', () => warned(harness, 'hostile-1', 'self-convicted'));
    const since = Math.max(...honest.map((name) => lastRound(harness, name)));
    await harness.until('two rounds later', () =>
      honest.every((name) => lastRound(harness, name) >= since + 2),
    );
    const idOf = (name: string) => harness.cluster.nodes.find(({ spec }) => spec.name === name)!.nodeId;
    const { contributions } = harness.rounds('node-1').at(-1)!;
    assert.deepEqual([...contributions].sort(), [idOf('node-1'), idOf('node-3')].sort());
    agreedHashes(harness, ['node-1', 'node-3']);
    agreedHashes(harness, ['node-2', 'node-4']);
  } finally {
    await harness.close();
  }
});
