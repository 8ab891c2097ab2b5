/** Members that are silent, on real ledger nodes in virtual time: dropped, missed by nobody, and back with a vote. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { silentTransport } from '../../sim/cheats-validator.ts';
import {
  assertSameLedger,
  createLedgerGroup,
  epochBlocks,
  type LedgerGroupNode,
} from '../../test/ledger-group.ts';
import { chainOf } from '../ledger/money.ts';
import type { PeerOptions } from './peer.ts';

const policy = { silentTurns: 2 };
const votersAt = ({ ledger }: LedgerGroupNode) => chainOf(ledger.state()).voters.length;
const slashed = ({ ledger }: LedgerGroupNode) => {
  const state = ledger.state();
  return state.keys('slash').map((key) => [state.get('slash', key)!.node, state.get('slash', key)!.reason]);
};

test('a member that crashed is dropped, comes back from its store and votes again', async () => {
  const group = createLedgerGroup(4, 4, policy);
  const nodes: LedgerGroupNode[] = [];
  for (let index = 0; index < 4; index++) nodes.push(await group.start(index));
  const gone = group.network.members[3]!.nodeId;
  await group.decide(nodes, epochBlocks);
  await nodes[3]!.crash();
  const rest = nodes.slice(0, 3);
  await group.decide(rest, 3 * epochBlocks);
  assert.equal(votersAt(rest[0]!), 3);
  assert.deepEqual(slashed(rest[0]!), [[gone, 'silence']]);
  assert.equal(rest[0]!.ledger.state().get('member', gone)?.registered, false);
  const again = await group.start(3, { store: nodes[3]!.store });
  const all = [...rest, again];
  await group.until('it has caught up', () => again.ledger.head().number >= rest[0]!.ledger.head().number);
  await group.decide(all, 3 * epochBlocks);
  assert.ok(all.every((node) => votersAt(node) === 4));
  assertSameLedger(all);
  // Its vote is needed again: three decide with it when another is away.
  await rest[0]!.crash();
  await group.decide(all.slice(1), 2);
  assertSameLedger(all.slice(1));
  for (const node of all.slice(1)) await node.crash();
});

test('who hears all and never votes is dropped; the others go on with one ledger', async () => {
  const group = createLedgerGroup(4, 4, policy);
  const nodes: LedgerGroupNode[] = [];
  for (let index = 0; index < 4; index++) {
    nodes.push(
      await group.start(index, {
        ...(index === 2 && {
          disguise: (transport) => {
            const honest = { transport, network: group.network } as unknown as PeerOptions;
            return silentTransport({ honest, cheatsIn: () => true, cheatsNow: () => true });
          },
        }),
      }),
    );
  }
  const silent = group.network.members[2]!.nodeId;
  await group.decide(nodes, 4 * epochBlocks);
  assert.deepEqual(slashed(nodes[0]!)[0], [silent, 'silence']);
  assertSameLedger(nodes);
  assert.ok(nodes.every((node) => slashed(node).every(([node]) => node === silent)));
  for (const node of nodes) await node.crash();
});
