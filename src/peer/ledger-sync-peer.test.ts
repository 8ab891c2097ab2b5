/** Whole peers that join the ledger from far away: they train on, and count, as if they had been there. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { assertOneHistory, createPeerGroup, type GroupPeer } from '../../test/peer-group.ts';
import { toHex } from '../std/bytes.ts';
import { memoryStore } from '../std/store.ts';

test('a member away for many epochs and a newcomer join the training of now', async () => {
  const group = createPeerGroup(5, 4, {}, { epochBlocks: 2, auditBlocks: 1 });
  const peers: GroupPeer[] = [];
  for (let index = 0; index < 3; index++) peers.push(await group.start(index));
  const store = memoryStore();
  const first = await group.start(3, { store });
  const epoch = ({ peer }: GroupPeer) => peer.ledger.consensus.status().epoch;
  await group.until('a round with all', () => [...peers, first].every(({ rounds }) => rounds().length > 0));
  await first.crash();
  const leftIn = epoch(first);
  await group.until('many epochs without it', () => epoch(peers[0]!) > leftIn + 3);
  const late = [await group.start(3, { store }), await group.start(4)];
  const joinedAt = peers[0]!.rounds().length;
  await group.until('the contributions of both count', () =>
    peers[0]!
      .rounds()
      .slice(joinedAt)
      .some(({ contributions }) => [3, 4].every((index) => contributions.includes(group.ids[index]!))),
  );
  assertOneHistory([...peers, ...late]);
  for (const { events } of late)
    assert.ok(events.some((event) => event.type === 'warning' && event.code === 'blocks-skipped'));
  const states = new Map<number, string>();
  for (const { peer } of [...peers, ...late]) {
    const { number } = peer.ledger.head();
    const root = toHex(peer.ledger.state().root());
    assert.equal(states.get(number) ?? root, root, `after block ${number}`);
    states.set(number, root);
  }
  for (const one of [...peers, ...late]) await one.stop();
});
