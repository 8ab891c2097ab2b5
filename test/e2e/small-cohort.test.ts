/** Two nodes that do not trust each other: what one contributes enters the model only when the other has checked it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditedLedger } from '../../src/cli/audited-ledger.ts';
import { buildSmallDataset, smallModel } from '../small-world.ts';
import { agreedHashes, createHarness } from './cluster-harness.ts';

const innerSteps = 4;
const names = ['node-1', 'node-2'] as const;

test('with two nodes each contribution is audited before its round closes', async () => {
  const harness = await createHarness({
    nodes: 2,
    innerSteps,
    model: smallModel,
    buildDataset: buildSmallDataset,
    ledger: { ...auditedLedger(innerSteps), auditedCohort: 3 },
    nodeArgs: ['--audit-share', '1'],
  });
  try {
    harness.startAll();
    await harness.until('both close round 2', () =>
      names.every((name) => (harness.rounds(name).at(-1)?.round ?? -1) >= 2),
    );
    for (const [i, name] of names.entries()) {
      const other = harness.cluster.nodes[1 - i]!.nodeId;
      const events = harness.events(name);
      for (const round of [1, 2]) {
        const closed = events.findIndex((event) => event.type === 'round' && event.round === round);
        const audited = events.findIndex(
          (event) => event.type === 'audit' && event.round === round && event.prover === other,
        );
        assert.ok(audited >= 0 && audited < closed, `${name}, round ${round}: ${audited}, ${closed}`);
        const event = events[closed];
        assert.ok(event?.type === 'round' && event.contributions.length === 2, 'and both count');
      }
      assert.ok(events.every((event) => event.type !== 'audit' || event.code === 'valid'));
    }
    agreedHashes(harness, [...names]);
  } finally {
    await harness.close();
  }
});
