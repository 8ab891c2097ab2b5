/**
 * A member that crashes at any write, and starts again from its store, never contradicts itself; and what it missed is
 * announced to its application before it is delivered.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createGroup, type Group } from '../../test/consensus-group.ts';
import { dyingStore } from '../../test/dying-store.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { memoryStore } from '../std/store.ts';
import { defaultTiming } from './limits.ts';

const view = 3 * defaultTiming.deltaMs;

function assertConsistent(group: Group): void {
  const said = new Map<string, string>();
  for (const { message } of group.said) {
    if (message.type !== 'vote') continue;
    const { kind, member, height, blockHash } = message.vote;
    const name = `${kind} of ${member} at ${height}`;
    const hash = toHex(blockHash);
    assert.equal(said.get(name) ?? hash, hash, `two of: ${name}`);
    said.set(name, hash);
  }
  for (const name of said.keys()) {
    if (name.startsWith('finalize')) assert.ok(!said.has(name.replace('finalize', 'dummy')), name);
  }
}

test('killed at every write in turn, then restarted: no double vote, nothing lost, nothing twice', async () => {
  for (let writes = 0; writes < 24; writes++) {
    for (const count of [1, 4]) {
      const group = createGroup(count);
      const victim = 1 % count;
      const store = memoryStore();
      let dead = false;
      const died = () => {
        dead = true;
        group.nodes.delete(victim);
      };
      const first = await group.open(victim, { store: dyingStore(store, writes, died) });
      for (let i = 0; i < count; i++) if (i !== victim) await group.open(i);
      await group.run(1);
      // Every life proposes other payloads, so a forgotten proposal would be a second one.
      for (let round = 0; round < 2 && !dead; round++) {
        group.wakeAll();
        await group.run(50);
      }
      await group.kill(victim);
      const second = await group.open(victim, {
        store,
        application: {
          propose: async ({ height, undecided }) =>
            undecided.length > 0 ? undefined : utf8(`second life, height ${height}`),
        },
      });
      await group.run(1);
      for (let round = 0; round < 3; round++) {
        group.wakeAll();
        await group.run(10 * view);
      }
      assertConsistent(group);
      assert.equal(second.failures.length, 0);
      // The same payload may come again only if the crash fell between applying it and noting that.
      const both = [...first.delivered, ...second.delivered];
      assert.ok(both.length - new Set(both).size <= 1, `${both}`);
      if (count === 4) assert.deepEqual([...new Set(both)], group.nodes.get(0)!.delivered);
      assert.ok(new Set(both).size >= 3);
    }
  }
});

test('all members restarted at once go on from what they had written', async () => {
  const group = createGroup(4);
  for (let i = 0; i < 4; i++) await group.open(i);
  await group.run(1);
  group.wakeAll();
  await group.run(50);
  // Notarized everywhere, finalized nowhere: only the stores know of the block.
  group.reaches = (_from, _to, message) => message.type !== 'vote' || message.vote.kind === 'vote';
  group.wakeAll();
  await group.run(50);
  for (const { replica } of group.nodes.values()) assert.equal(replica.status().decidedHeight, 1);
  for (let i = 0; i < 4; i++) await group.kill(i);
  group.reaches = () => true;
  for (let i = 0; i < 4; i++) await group.open(i);
  await group.run(20 * view);
  for (const { delivered } of group.nodes.values()) assert.deepEqual(delivered, ['height 2 by 2']);
  assertConsistent(group);
});

test('delivery resumes after the height that the application holds', async () => {
  const group = createGroup(1);
  const store = memoryStore();
  await group.open(0, { store });
  await group.run(1);
  for (let i = 0; i < 4; i++) {
    group.wakeAll();
    await group.run(10);
  }
  await group.kill(0);
  const own = await group.open(0, { store });
  await group.run(10);
  assert.deepEqual(own.delivered, []);
  await group.kill(0);
  const behind = await group.open(0, { store, appliedHeight: 2 });
  await group.run(10);
  assert.deepEqual(behind.delivered, ['height 3 by 0', 'height 4 by 0']);
});

test('a damaged store is one clear error', async () => {
  for (const key of ['record', 'applied', 'undecided/0000000000000009', 'decided/0000000000000001']) {
    const store = memoryStore();
    await store.put(`consensus/${key}`, utf8('damage'));
    await assert.rejects(
      () => createGroup(1).open(0, { store }),
      (error) => error instanceof CodedError && error.code === 'consensus-store-damaged',
    );
  }
});

test('an application hears of payloads that are decided together before the first is delivered', async () => {
  const group = createGroup(4, 1);
  for (let index = 0; index < 4; index++) await group.open(index);
  const coming: string[] = [];
  const node = await group.open(4, {
    application: {
      coming: (payloads) => {
        assert.equal(node.delivered.length, 0);
        coming.push(...payloads.map((payload) => new TextDecoder().decode(payload)));
      },
    },
  });
  group.reaches = (_from, to) => to !== 4;
  for (let round = 0; round < 3; round++) {
    group.wakeAll();
    await group.run(100);
  }
  assert.ok(node.replica.adopt(group.nodes.get(0)!.replica.decidedSince(0)).ok);
  await group.run(10);
  assert.equal(coming.length, 3);
  assert.deepEqual(node.delivered, coming);
});
