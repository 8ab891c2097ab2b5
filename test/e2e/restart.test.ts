/** kill -9 of everything there is: what is left on the disks is enough to go on, with the losses that were logged. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { readLossLog } from '../../src/platform/nodejs/loss-log.ts';
import { agreedHashes, createHarness, type Harness } from './cluster-harness.ts';

const lastRound = (harness: Harness, name: string) => harness.rounds(name).at(-1)?.round ?? -1;

/** Steps that stand in the log more than once, each with all its losses. */
async function replayedSteps(directory: string): Promise<number[][]> {
  const { entries } = await readLossLog(join(directory, 'losses.jsonl'));
  const byStep = new Map<string, number[]>();
  for (const { round, step, loss } of entries) {
    const key = `${round}/${step}`;
    byStep.set(key, [...(byStep.get(key) ?? []), loss]);
  }
  return [...byStep.values()].filter((losses) => losses.length > 1);
}

for (const nodes of [1, 3]) {
  test(`a network of ${nodes} killed as a whole goes on from its snapshots`, async () => {
    const harness = await createHarness({ nodes, nodeArgs: ['--checkpoint-seconds', '2'] });
    const names = harness.cluster.nodes.map((node) => node.spec.name);
    const furthest = () => Math.max(...names.map((name) => lastRound(harness, name)));
    const allPast = (round: number) => () => names.every((name) => lastRound(harness, name) > round);
    try {
      harness.startAll();
      const saved = (name: string) => harness.events(name).some((event) => event.type === 'checkpoint');
      await harness.until('all have a snapshot', () => names.every(saved));
      // Some work after the snapshot, to be done again.
      await harness.until('rounds go on after it', allPast(furthest() + 1));
      await Promise.all(names.map((name) => harness.group.get(name)!.kill()));
      const killedAt = furthest();
      for (const name of names) harness.start(name);
      await harness.until('later rounds close', allPast(killedAt + 1));
      for (const name of names) {
        assert.ok(
          harness.events(name).some((event) => event.type === 'restored'),
          `${name} used its snapshot`,
        );
      }
      agreedHashes(harness, names);
      const replayed = (
        await Promise.all(harness.cluster.nodes.map((node) => replayedSteps(node.directory)))
      ).flat();
      assert.ok(replayed.length > 0, 'some steps were made twice');
      for (const losses of replayed) assert.equal(new Set(losses).size, 1, `replayed losses ${losses}`);
    } finally {
      await harness.close();
    }
  });
}
