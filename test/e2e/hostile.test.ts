/** One hostile member of five, as real processes: the default aggregator learns all the same, the plain mean does not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeEvent } from '../../src/peer/events.ts';
import { agreedHashes, createHarness, type HarnessOptions } from './cluster-harness.ts';

const rounds = 6;

async function heldOutLosses(
  options: Pick<HarnessOptions, 'aggregator'>,
): Promise<{ first: number; last: number }> {
  const harness = await createHarness({
    nodes: 5,
    attackers: 1,
    attack: { name: 'sign-flip' },
    rounds,
    ...options,
  });
  const honest = harness.cluster.nodes.filter((node) => !node.hostile).map((node) => node.spec.name);
  try {
    harness.startAll();
    const finished = (name: string) => harness.events(name).some((event) => event.type === 'finished');
    await harness.until('honest nodes close all rounds', () => honest.every(finished));
    assert.equal(agreedHashes(harness, honest).size, rounds);
    const start = harness
      .events(honest[0]!)
      .find((event): event is NodeEvent & { type: 'heldOut' } => event.type === 'heldOut');
    const closed = harness.rounds(honest[0]!);
    const counted = closed.flatMap((round) => round.contributions.length + round.rejected.length);
    assert.ok(Math.max(...counted) === 5, 'the hostile contribution was on the table');
    return { first: start!.loss, last: closed.at(-1)!.heldOutLoss! };
  } finally {
    await harness.close();
  }
}

test('a sign-flipping member of five does not keep the others from learning', async () => {
  const { first, last } = await heldOutLosses({});
  assert.ok(last < first - 0.3, `held-out loss ${first} -> ${last}`);
});

test('with the plain mean, unscreened, it does', async () => {
  const { first, last } = await heldOutLosses({ aggregator: 'mean' });
  assert.ok(!(last < first - 0.1), `held-out loss ${first} -> ${last}`);
});
