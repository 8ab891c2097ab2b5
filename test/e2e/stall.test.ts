/** A node that hangs (kill -STOP) holds nobody up for long, and is part of the network again when it wakes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { agreedHashes, createHarness } from './cluster-harness.ts';

test('rounds close without a stopped node, which catches up when it goes on', async () => {
  const harness = await createHarness({ nodes: 4 });
  const names = harness.cluster.nodes.map((node) => node.spec.name);
  const stalled = names[2]!;
  const others = names.filter((name) => name !== stalled);
  const lastRound = (name: string) => harness.rounds(name).at(-1)?.round ?? -1;
  try {
    harness.startAll();
    await harness.until('all close round 1', () => names.every((name) => lastRound(name) >= 1));
    const { pid } = harness.group.get(stalled)!;
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGSTOP');
    const stoppedAt = Math.max(...others.map(lastRound));
    await harness.until('the others close three more rounds', () =>
      others.every((name) => lastRound(name) >= stoppedAt + 3),
    );
    process.kill(pid, 'SIGCONT');
    const wokenAt = Math.max(...others.map(lastRound));
    await harness.until('it closes a later round', () => lastRound(stalled) > wokenAt);
    await harness.until(
      'its contributions count again',
      () => harness.rounds(others[0]!).at(-1)!.contributions.length === 4,
    );
    agreedHashes(harness, names);
  } finally {
    await harness.close();
  }
});
