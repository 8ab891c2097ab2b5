/** Real processes, real sockets, kill -9: the others go on, and the node started again catches up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agreedHashes, createHarness } from './cluster-harness.ts';

test('three of four nodes go on after a kill -9, and the fourth catches up when it is started again', async () => {
  const harness = await createHarness({ nodes: 4, nodeArgs: ['--checkpoint-seconds', '1'] });
  const names = harness.cluster.nodes.map((node) => node.spec.name);
  const victim = names[1]!;
  const others = names.filter((name) => name !== victim);
  const lastRound = (name: string) => harness.rounds(name).at(-1)?.round ?? -1;
  try {
    harness.startAll();
    await harness.until('all close round 1', () => names.every((name) => lastRound(name) >= 1));
    await harness.group.get(victim)!.kill();
    const killedAt = Math.max(...others.map(lastRound));
    await harness.until('the others close three more rounds', () =>
      others.every((name) => lastRound(name) >= killedAt + 3),
    );
    const seen = harness.rounds(victim).length;
    harness.start(victim);
    await harness.until(
      'the killed node closes rounds again',
      () => harness.rounds(victim).length >= seen + 2,
    );
    const again = harness.rounds(victim).at(-1)!;
    await harness.until('the others close that round', () =>
      others.every((name) => lastRound(name) >= again.round),
    );
    assert.ok(again.round > killedAt, 'it caught up with rounds closed in its absence');
    agreedHashes(harness, names);
    const contributed = () => harness.rounds(others[0]!).at(-1)!.contributions.length;
    await harness.until('its contributions count again', () => contributed() === 4);
  } finally {
    await harness.close();
  }
});
