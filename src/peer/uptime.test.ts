/** Questions about held weights, end to end in virtual time: who holds them answers and is paid, who does not is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { countedDataset } from '../../test/counted-dataset.ts';
import { createPeerGroup, type GroupPeer } from '../../test/peer-group.ts';
import { chainOf, moneyInAll } from '../ledger/money.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import { challenge } from '../ledger/transactions/challenge.ts';

const dataset = await countedDataset('asked', 40);

/** Every proof is paid as soon as it stands, and everybody is asked in every five blocks. */
const policy: Partial<LedgerPolicy> = {
  intervalSteps: 3,
  auditRates: [{ below: 1_000, rate: 1_000 }],
  bondProofs: 0,
  vestingFactor: 1,
  auditBlocks: 30,
  epochBlocks: 5,
  rewardPerBatch: 0,
  uptimeReward: 7,
};

test('nodes answer what they are asked about the weights they hold; whoever makes its answer up is not paid', async () => {
  const group = createPeerGroup(4, 4, {}, policy, dataset);
  const peers: GroupPeer[] = [];
  for (let index = 0; index < 3; index++) peers.push(await group.start(index, { audits: true }));
  const real = await group.start(3, { audits: true });
  peers.push(real);
  // It answers with another leaf's bytes, as somebody must who kept none.
  const { send } = real.peer.ledger;
  real.peer.ledger.send = (rule, body) =>
    rule.kind === challenge.kind
      ? send(rule, { ...body, answer: new Uint8Array(32).fill(9) })
      : send(rule, body);
  const state = () => peers[0]!.peer.ledger.state();
  const answered = () => group.ids.map((id) => state().get('prover', id)?.answered ?? 0);
  await group.until(
    'three have answered twice',
    () =>
      answered()
        .slice(0, 3)
        .every((count) => count >= 2),
    900_000,
  );
  assert.equal(answered()[3], 0);
  const total = answered().reduce((sum, count) => sum + count, 0);
  const { minted, burned } = chainOf(state());
  assert.equal(minted, BigInt(7 * total), 'nothing else is minted here');
  assert.equal(moneyInAll(state()), minted - burned);
  assert.deepEqual(state().keys('slash'), []);
  const told = peers[1]!.events.findLast((event) => event.type === 'block');
  assert.ok(told?.type === 'block' && told.answered >= 2);
  for (const { events } of peers)
    assert.ok(events.every((event) => event.type !== 'warning' || event.code !== 'bad-evidence'));
  for (const peer of peers) await peer.stop();
});
