/** A member that claims work and does none, as a real process: audited, convicted by all, and what it earned is gone. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditedLedger } from '../../src/cli/audited-ledger.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import { buildSmallDataset, smallModel } from '../small-world.ts';
import { agreedHashes, createHarness } from './cluster-harness.ts';

type BlockEvent = NodeEvent & { type: 'block' };
const innerSteps = 4;
/** Draw, audit by two, by all, and their blocks: some twenty seconds on an idle machine. */
const slashedMs = 200_000;

test('an idle member loses all that it earned, the others nothing, on one ledger', async () => {
  const harness = await createHarness({
    nodes: 4,
    attackers: 1,
    cheat: { name: 'idle', fromRound: 2 },
    innerSteps,
    model: smallModel,
    buildDataset: buildSmallDataset,
    ledger: auditedLedger(innerSteps),
    nodeArgs: ['--audit-share', '1'],
  });
  const honest = ['node-1', 'node-2', 'node-3'];
  const cheater = harness.cluster.nodes[3]!.nodeId;
  const blocks = (name: string) =>
    harness.events(name).filter((event): event is BlockEvent => event.type === 'block');
  const slashed = (name: string) => blocks(name).at(-1)?.slashed ?? [];
  try {
    harness.startAll();
    await harness.until(
      'the cheater is slashed',
      () => honest.every((name) => slashed(name).length > 0),
      slashedMs,
    );
    for (const name of honest) {
      const [guilty, ...others] = slashed(name);
      assert.deepEqual(others, []);
      assert.equal(guilty!.node, cheater);
      assert.equal(guilty!.reason, 'false-proof');
      assert.ok(BigInt(guilty!.amount) > 0n, 'it had something to lose');
      assert.ok(guilty!.proofs > 2, 'and it was honest at first');
    }
    const found = honest.flatMap((name) => harness.events(name)).filter((event) => event.type === 'audit');
    const ofCheater = found.filter((event) => event.prover === cheater && event.round >= 2);
    assert.ok(ofCheater.length > 0);
    assert.ok(ofCheater.every(({ code }) => code === 'no-work'));
    assert.ok(found.filter((event) => event.round < 2).every(({ code }) => code === 'valid'));
    const last = blocks('cheater-1').at(-1)!;
    await harness.until('it knows, too', () => slashed('cheater-1').length > 0);
    assert.equal(blocks('cheater-1').at(-1)!.pending, '0', `was ${last.pending}`);
    agreedHashes(harness, honest);
    const roots = (name: string) => new Map(blocks(name).map(({ number, stateRoot }) => [number, stateRoot]));
    const first = roots('node-1');
    for (const name of honest)
      for (const [number, root] of roots(name)) assert.equal(root, first.get(number) ?? root);
  } finally {
    await harness.close();
  }
});
