/** A node that is not a member joins a running network late: it catches up, contributes, and has no vote. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { programFile } from '../../src/platform/nodejs/installation.ts';
import { agreedHashes, createHarness } from './cluster-harness.ts';

test('a late joiner fetches the agreed state and contributes without a vote', async () => {
  const harness = await createHarness({ nodes: 3 });
  const members = harness.cluster.nodes.map((node) => node.spec.name);
  const lastRound = (name: string) => harness.rounds(name).at(-1)?.round ?? -1;
  try {
    harness.startAll();
    await harness.until('members close round 2', () => members.every((name) => lastRound(name) >= 2));
    const like = harness.cluster.nodes[0]!;
    const args = like.spec.args.map((arg, i, all) => {
      if (all[i - 1] === '--data') return join(like.directory, '..', 'late');
      if (all[i - 1] === '--listen') return '/ip4/127.0.0.1/tcp/0';
      return arg;
    });
    harness.startSpec({ name: 'late', program: programFile('src/cli/main'), args });
    await harness.until('the newcomer closes two rounds', () => harness.rounds('late').length >= 2);
    const started = harness.events('late').find((event) => event.type === 'started');
    assert.ok(started?.type === 'started' && started.round === 0, 'it began with nothing');
    assert.ok(
      harness.events('late').some((event) => event.type === 'resync'),
      'it fetched the agreed state',
    );
    const lateId = started.nodeId;
    const counts = () => harness.rounds(members[0]!).at(-1)!.contributions.includes(lateId);
    await harness.until('its contribution counts', counts);
    assert.ok(!harness.cluster.network.members.some((member) => member.nodeId === lateId), 'it has no vote');
    const upTo = lastRound('late');
    await harness.until('members are as far', () => members.every((name) => lastRound(name) >= upTo));
    agreedHashes(harness, [...members, 'late']);
  } finally {
    await harness.close();
  }
});
