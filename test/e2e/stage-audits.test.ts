/**
 * A model cut in two on real processes, a stage that sends garbage to its neighbours, and an honest Driver that is stopped
 * and started in between: all audit each other, whatever stage they hold, and the cheater alone is slashed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { auditedLedger } from '../../src/cli/audited-ledger.ts';
import type { NodeEvent } from '../../src/peer/events.ts';
import { buildSmallDataset, smallModel } from '../small-world.ts';
import { agreedHashes, createHarness } from './cluster-harness.ts';

type BlockEvent = NodeEvent & { type: 'block' };
type AuditEvent = NodeEvent & { type: 'audit' };
const innerSteps = 4;
const stages = 2;
const cheatFrom = 8;
const slashedMs = 200_000;

test('a stage that sends garbage is slashed; who was started again is not', async () => {
  const harness = await createHarness({
    nodes: 4,
    attackers: 1,
    cheat: { name: 'garbage-onward', fromRound: cheatFrom },
    innerSteps,
    training: { stages, microbatches: 2 },
    model: smallModel,
    buildDataset: buildSmallDataset,
    ledger: auditedLedger(innerSteps, stages),
    nodeArgs: ['--audit-share', '1', '--checkpoint-seconds', '1'],
  });
  // The last one holds the second stage, with node-2; node-1 and node-3 are the Drivers.
  const honest = ['node-1', 'node-2', 'node-3'];
  const cheater = harness.cluster.nodes[3]!.nodeId;
  const audits = () =>
    honest
      .flatMap((name) => harness.events(name))
      .filter((event): event is AuditEvent => event.type === 'audit');
  const newest = (name: string) =>
    harness.events(name).findLast((event): event is BlockEvent => event.type === 'block');
  try {
    harness.startAll();
    await harness.until('proofs are audited', () => audits().length >= 3);
    await harness.group.get('node-3')!.stop();
    harness.start('node-3');
    const before = audits().length;
    await harness.until('audits go on', () => audits().length >= before + 3);
    await harness.until(
      'the cheater is slashed',
      () => honest.every((name) => (newest(name)?.slashed.length ?? 0) > 0),
      slashedMs,
    );
    for (const name of honest) {
      const guilty = newest(name)!.slashed;
      assert.deepEqual(
        guilty.map(({ node, reason }) => [node, reason]),
        [[cheater, 'false-proof']],
      );
      assert.ok(BigInt(newest(name)!.balance) > 0n, 'paid for its stage');
    }
    const isGarbage = ({ prover, round }: AuditEvent) => prover === cheater && round >= cheatFrom;
    for (const one of audits()) if (!isGarbage(one)) assert.equal(one.code, 'valid', one.detail);
    // Once it is convicted nobody keeps the evidence of its other proofs.
    const found = new Set(
      audits()
        .filter(isGarbage)
        .map(({ code }) => code),
    );
    assert.ok(found.has('wrong-rows') && !found.has('valid'), [...found].join());
    agreedHashes(harness, ['node-1', 'node-3']);
    const roots = new Map<number, string>();
    for (const name of honest)
      for (const event of harness.events(name))
        if (event.type === 'block') {
          assert.equal(event.stateRoot, roots.get(event.number) ?? event.stateRoot);
          roots.set(event.number, event.stateRoot);
        }
  } finally {
    await harness.close();
  }
});
