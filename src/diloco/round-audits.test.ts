/** A round that waits for audits: of a stage that few contribute to, only what stood its audit is listed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { context, coordinatorOf } from '../../test/round-coordinator.ts';
import { blobOf, networkId, testBase } from '../../test/virtual-network.ts';
import type { Clearance } from '../ledger/clearance.ts';
import { decodeRoundList } from './round-list.ts';

/** Two members, both here; `say` is what the ledger says of them from then on. */
async function setup() {
  const says = new Map<string, Clearance>();
  const asked: number[] = [];
  const group = coordinatorOf(2, 2, {
    clearance: ({ nodeId }, contributors) => {
      asked.push(contributors);
      return says.get(nodeId) ?? 'claimed';
    },
  });
  const { coordinator, application, contribute, ids } = group;
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(0), 4);
  await contribute(1);
  await group.run(100);
  const say = (index: number, clearance: Clearance) => {
    says.set(ids[index]!, clearance);
    coordinator.remind();
  };
  const proposed = async (): Promise<number[] | undefined> => {
    const payload = await application.propose(context());
    if (!payload) return undefined;
    const list = decodeRoundList(networkId, payload);
    assert.ok(list.ok);
    return list.value.contributions.map(({ nodeId }) => ids.indexOf(nodeId)).sort();
  };
  return { ...group, say, proposed, asked };
}

test('nothing is proposed before the audits have ended, and blocks are asked for meanwhile, every two seconds', async () => {
  const { woken, say, proposed, run, coordinator, asked } = await setup();
  assert.ok(asked.every((contributors) => contributors <= 2));
  assert.equal(woken(), true, 'audits need blocks');
  assert.equal(await proposed(), undefined);
  for (let i = 0; i < 10; i++) coordinator.remind();
  assert.equal(woken(), false, 'however many blocks come');
  await run(2_100);
  assert.equal(woken(), true);
  say(0, 'cleared');
  await run(100);
  assert.equal(await proposed(), undefined, 'the other audit goes on');
  say(1, 'cleared');
  assert.equal(woken(), true, 'for the round itself');
  assert.deepEqual(await proposed(), [0, 1]);
});

test('whoever was convicted is not waited for', async () => {
  const { say, proposed } = await setup();
  say(1, 'refused');
  say(0, 'cleared');
  assert.deepEqual(await proposed(), [0]);
});

test('no vote while an audit goes on, for a list without that contribution', async () => {
  const { say, validate, listOf } = await setup();
  say(0, 'cleared');
  assert.equal(await validate(listOf([0])), 'waiting');
});

test('audits that take longer than ten minutes leave their contributions out; without any the round closes empty', async () => {
  const late = await setup();
  late.say(0, 'cleared');
  await late.run(600_100);
  assert.deepEqual(await late.proposed(), [0]);
  const { run, proposed, validate, listOf } = await setup();
  await run(600_100);
  assert.deepEqual(await proposed(), []);
  assert.equal(await validate(listOf([])), true);
});

test('a contribution that nobody claims is waited for half a minute', async () => {
  const { say, run, proposed } = await setup();
  say(1, 'unclaimed');
  await run(29_000);
  assert.equal(await proposed(), undefined, 'one is under audit');
  say(0, 'cleared');
  await run(100);
  assert.equal(await proposed(), undefined);
  await run(1_000);
  assert.deepEqual(await proposed(), [0]);
});
