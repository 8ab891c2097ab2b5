/** A model cut in two, each half on two real processes: any of them killed or stopped, the others train on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NodeEvent } from '../../src/peer/events.ts';
import { agreedHashes, createHarness, type Harness } from './cluster-harness.ts';

/** Members get stages in turn. */
const drivers = ['node-1', 'node-3'] as const;
const validators = ['node-2', 'node-4'] as const;
const all = [...drivers, ...validators];

function stagesHarness(): Promise<Harness> {
  return createHarness({
    nodes: 4,
    innerSteps: 6,
    nodeArgs: ['--checkpoint-seconds', '1'],
    training: { stages: 2, microbatches: 4 },
  });
}

const lastRound = (harness: Harness, name: string) => harness.rounds(name).at(-1)?.round ?? -1;

function closed(harness: Harness, names: readonly string[], round: number): Promise<void> {
  return harness.until(`${names} close round ${round}`, () =>
    names.every((name) => lastRound(harness, name) >= round),
  );
}

function failovers(harness: Harness, names: readonly string[]): (NodeEvent & { type: 'failover' })[] {
  return names.flatMap((name) => harness.events(name)).filter((event) => event.type === 'failover');
}

function checkAgreement(harness: Harness): void {
  agreedHashes(harness, drivers);
  agreedHashes(harness, validators);
}

test('a killed Validator and a killed Driver: the others go on, and both come back', async () => {
  const harness = await stagesHarness();
  try {
    harness.startAll();
    await closed(harness, all, 0);
    // Between two calls a kill shows by the connection alone, and no call has to be moved.
    await harness.group.get('node-2')!.kill();
    const others = all.filter((name) => name !== 'node-2');
    const killedAt = lastRound(harness, 'node-1');
    await closed(harness, others, killedAt + 2);
    harness.start('node-2');
    await harness.until('it closes a later round', () => lastRound(harness, 'node-2') > killedAt + 2);
    await harness.group.get('node-3')!.kill();
    const second = lastRound(harness, 'node-1');
    await closed(harness, ['node-1', ...validators], second + 2);
    harness.start('node-3');
    await harness.until('it closes a later round', () => lastRound(harness, 'node-3') > second + 2);
    checkAgreement(harness);
    const contributors = () => harness.rounds('node-1').at(-1)!.contributions.length;
    await harness.until('both Drivers count again', () => contributors() === 2);
  } finally {
    await harness.close();
  }
});

test('a stopped Validator is given up in time, and used again when it goes on', async () => {
  const harness = await stagesHarness();
  try {
    harness.startAll();
    await closed(harness, all, 0);
    const { pid } = harness.group.get('node-4')!;
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGSTOP');
    await harness.until('a Driver goes on elsewhere', () => failovers(harness, drivers).length > 0);
    const stoppedAt = lastRound(harness, 'node-1');
    await closed(harness, [...drivers, 'node-2'], stoppedAt + 2);
    process.kill(pid, 'SIGCONT');
    await harness.until('it closes a later round', () => lastRound(harness, 'node-4') > stoppedAt + 2);
    const steps = () => harness.events('node-4').filter(({ type }) => type === 'step').length;
    const before = steps();
    await harness.until('it is used again', () => steps() > before);
    checkAgreement(harness);
  } finally {
    await harness.close();
  }
});
