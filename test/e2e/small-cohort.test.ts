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
    let closings = 0;
    for (const [i, name] of names.entries()) {
      const other = harness.cluster.nodes[1 - i]!.nodeId;
      const events = harness.events(name);
      // A node that was given the state of a round has not closed it.
      for (const [closed, event] of events.entries()) {
        if (event.type !== 'round' || event.round === 0) continue;
        const { round, contributions } = event;
        if (contributions.length < 2) continue;
        const audited = events.findIndex(
          (one) => one.type === 'audit' && one.round === round && one.prover === other,
        );
        assert.ok(audited >= 0 && audited < closed, `${name}, round ${round}: ${audited}, ${closed}`);
        closings++;
      }
      assert.ok(events.every((event) => event.type !== 'audit' || event.code === 'valid'));
    }
    assert.ok(closings >= 2, 'both contributions count');
    agreedHashes(harness, [...names]);
  } finally {
    await harness.close();
  }
});
