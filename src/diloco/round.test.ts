/**
 * One node's part in closing rounds, with its replica of consensus replaced by the test's own questions: when it asks for
 * a decision, what it proposes, what it votes for, and which list counts.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { block, context, coordinatorOf, draw, never, nextBase } from '../../test/round-coordinator.ts';
import { announced, blobOf, networkId, testBase } from '../../test/virtual-network.ts';
import { contributionTopic, encodeAnnouncement } from '../ledger/announcement.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { decodeRoundList, encodeRoundList } from './round-list.ts';

test('consensus is asked when everybody expected has come, and not before', async () => {
  const { coordinator, contribute, run, woken, here } = coordinatorOf();
  coordinator.begin(0, testBase);
  await contribute(1);
  await contribute(2);
  await run(1000);
  assert.equal(woken(), false);
  await coordinator.contribute(blobOf(1), 4);
  await run(1000);
  assert.equal(woken(), false);
  await contribute(3);
  await run(1000);
  assert.equal(woken(), true);
  assert.deepEqual(here(), [0, 1, 2, 3]);
});

test('a silent member is waited for as long again as half of them took; one that leaves is not waited for', async () => {
  for (const event of ['silent', 'leaves'] as const) {
    const { coordinator, contribute, run, woken, transports } = coordinatorOf();
    coordinator.begin(0, testBase);
    await run(10_000);
    await coordinator.contribute(blobOf(1), 4);
    for (const index of [1, 2]) await contribute(index);
    await run(9_000);
    assert.equal(woken(), false);
    if (event === 'leaves') await transports[3]!.close();
    await run(event === 'leaves' ? 10 : 4_000);
    assert.equal(woken(), true, event);
  }
});

test('a node without a vote that came just too late is waited for in the next round', async () => {
  const { coordinator, application, contribute, listOf, run, woken } = coordinatorOf(4, 3);
  coordinator.begin(0, testBase);
  await run(10_000);
  for (const index of [1, 2]) await contribute(index);
  await coordinator.contribute(blobOf(1), 4);
  await run(100);
  assert.equal(woken(), true, 'the members are here');
  application.decided(block(listOf([1, 2])));
  coordinator.begin(1, nextBase);
  await contribute(3);
  await run(10_000);
  for (const index of [1, 2]) await contribute(index, blobOf(index), { round: 1, base: nextBase });
  await coordinator.contribute(blobOf(1), 4);
  await run(100);
  assert.equal(woken(), false);
  await contribute(3, blobOf(3), { round: 1, base: nextBase });
  await run(100);
  assert.equal(woken(), true);
});

test('a refused contribution is not waited for', async () => {
  const { coordinator, contribute, run, woken, refused } = coordinatorOf();
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  for (const index of [1, 2]) await contribute(index);
  await contribute(3, blobOf(Number.NaN));
  await run(1000);
  assert.equal(woken(), true);
  assert.equal(refused.length, 1);
  assert.match(refused[0]!, /^3 /);
});

test('early contributions, valid as soon as the round begins, wake consensus too', async () => {
  const { coordinator, contribute, run, woken } = coordinatorOf();
  coordinator.begin(0, testBase);
  for (const index of [1, 2, 3]) await contribute(index, blobOf(index), { round: 1, base: nextBase });
  await run(1000);
  assert.equal(woken(), false);
  coordinator.begin(1, nextBase);
  await coordinator.contribute(blobOf(1), 4);
  await run(1000);
  assert.equal(woken(), true);
});

test('malformed, oversize and forged announcements are penalised and change nothing', async () => {
  const { coordinator, run, here, transports, keys, woken } = coordinatorOf();
  const penalties: string[] = [];
  transports[0]!.penalize = (_peer, code) => void penalties.push(code);
  coordinator.begin(0, testBase);
  const good = encodeAnnouncement(announced(keys[1]!, blobOf(1)));
  const forged = good.slice();
  forged[forged.length - 1]! ^= 1;
  for (const message of [
    new Uint8Array(),
    new Uint8Array([0xff]),
    forged,
    good.subarray(0, -1),
    new Uint8Array(5000),
  ])
    await transports[1]!.publish(contributionTopic, message);
  await run(1000);
  assert.deepEqual(here(), []);
  assert.equal(woken(), false);
  assert.deepEqual(penalties.slice(0, 4).sort(), ['bad-signature', 'malformed', 'malformed', 'malformed']);
});

test('proposes what is here, once: not again on top of itself, and not when it is decided', async () => {
  const { coordinator, application, contribute, run, asked } = coordinatorOf();
  assert.equal(await asked(application.propose(context())), undefined);
  coordinator.begin(0, testBase);
  assert.equal(await asked(application.propose(context())), undefined, 'nothing to decide');
  for (const index of [1, 2]) await contribute(index);
  await run(1000);
  const payload = await asked(application.propose(context()));
  assert.ok(payload instanceof Uint8Array);
  const list = decodeRoundList(networkId, payload);
  assert.ok(list.ok);
  assert.equal(list.value.contributions.length, 2);
  assert.equal(await asked(application.propose(context([payload]))), undefined);
  assert.ok((await asked(application.propose(context([utf8('not a list')])))) instanceof Uint8Array);
  application.decided(block(payload));
  assert.equal(await asked(application.propose(context())), undefined);
});

test('votes for a list whose blobs it has or can fetch', async () => {
  const { coordinator, listOf, validate, here } = coordinatorOf();
  coordinator.begin(0, testBase);
  assert.equal(await validate(listOf([1, 2, 3])), true);
  assert.deepEqual(here(), [1, 2, 3], 'and then has them');
});

test('does not vote for another base or round, garbage, a decided or undecided round, or a blob that nobody has', async () => {
  const { coordinator, application, listOf, validate, keys } = coordinatorOf();
  coordinator.begin(5, testBase);
  assert.equal(await validate(utf8('garbage')), false);
  assert.equal(await validate(listOf([1], { round: 4 })), false);
  assert.equal(await validate(listOf([1], { round: 5, base: nextBase })), false);
  const withheld = announced(keys[1]!, blobOf(99), { round: 5 });
  assert.equal(await validate(encodeRoundList(draw(5, [withheld]))), false);
  const good = listOf([1, 2], { round: 5 });
  assert.equal(await validate(good, [good]), false, 'its chain already carries the round');
  application.decided(block(good));
  assert.equal(await validate(listOf([1, 2, 3], { round: 5 })), false, 'decided before');
});

test('does not vote for a proposer that leaves out most of what has come', async () => {
  const { coordinator, listOf, validate, contribute, run } = coordinatorOf();
  coordinator.begin(0, testBase);
  for (const index of [1, 2, 3]) await contribute(index);
  await run(1000);
  assert.equal(await validate(listOf([1])), false);
  assert.equal(await validate(listOf([1, 2])), true);
});

test('a vote waits until this node has closed the round before and would close this one; an abort ends the wait', async () => {
  const { coordinator, application, listOf, asked, validate, contribute } = coordinatorOf();
  coordinator.begin(0, testBase);
  const later = listOf([1, 2], { round: 1, base: nextBase });
  const vote = application.validate(later, context());
  assert.equal(await asked(vote), 'waiting');
  coordinator.begin(1, nextBase);
  assert.equal(await asked(vote), 'waiting', 'most are still to come: no vote for closing now');
  await coordinator.contribute(blobOf(1), 4);
  for (const index of [1, 2, 3]) await contribute(index, blobOf(index), { round: 1, base: nextBase });
  assert.equal(await asked(vote), true);
  const abort = new AbortController();
  const far = listOf([1], { round: 3, base: nextBase });
  const hopeless = application.validate(far, { height: 2, undecided: [], signal: abort.signal });
  assert.equal(await asked(hopeless), 'waiting');
  abort.abort();
  assert.equal(await asked(hopeless), false);
  assert.equal(await validate(listOf([1], { round: 0 })), false, 'over');
});

test('the first list decided for a round counts, a second one never', async () => {
  const { coordinator, application, listOf, asked } = coordinatorOf();
  coordinator.begin(0, testBase);
  assert.equal(coordinator.isDecided(), false);
  const first = listOf([1, 2, 3]);
  application.decided(block(first));
  application.decided(block(listOf([1])));
  assert.equal(coordinator.isDecided(), true);
  const list = await asked(coordinator.decision(never));
  assert.ok(list !== 'waiting' && list);
  assert.deepEqual(encodeRoundList(list), first);
});

test('whether a contribution counted is known once the very list is', () => {
  for (const [listed, isCounted] of [
    [[0, 1], true],
    [[1, 2], false],
  ] as const) {
    const { coordinator, application, listOf } = coordinatorOf();
    coordinator.begin(0, testBase);
    assert.equal(coordinator.isCounted(), null);
    application.decided(block(listOf([...listed])));
    assert.equal(coordinator.isCounted(), isCounted);
  }
});

test('a wake-up that an old decision used up is given again', async () => {
  const { coordinator, application, listOf, contribute, run, woken } = coordinatorOf();
  // This node fetched the state of round 1, and consensus tells it of round 0 only now.
  coordinator.begin(1, nextBase);
  await coordinator.contribute(blobOf(1), 4);
  for (const index of [1, 2, 3]) await contribute(index, blobOf(index), { round: 1, base: nextBase });
  await run(1000);
  assert.equal(woken(), true);
  application.decided(block(listOf([1, 2])));
  assert.equal(woken(), true);
  assert.equal(coordinator.isDecided(), false);
});

test('a decision that comes later than what is known says that a state must be fetched', async () => {
  const { coordinator, application, listOf, asked } = coordinatorOf();
  coordinator.begin(0, testBase);
  application.decided(block(listOf([1], { round: 6 })));
  assert.equal(coordinator.isDecided(), true);
  assert.equal(coordinator.newestDecided(), 6);
  // Whether its own contribution is in the list that closed its round, it does not know.
  assert.equal(coordinator.isCounted(), null);
  assert.equal(await asked(coordinator.decision(never)), undefined);
});

test('lists of later rounds are kept within a bound', async () => {
  const { coordinator, application, listOf, asked } = coordinatorOf();
  coordinator.begin(0, testBase);
  for (let round = 0; round < 70; round++) application.decided(block(listOf([1], { round })));
  assert.equal(await asked(coordinator.decision(never)), undefined, 'the oldest are gone');
  coordinator.begin(69, testBase);
  const last = await asked(coordinator.decision(never));
  assert.ok(last !== 'waiting' && last?.round === 69);
});

test('waiting for a decision ends with the signal, before and while', async () => {
  const { coordinator, asked } = coordinatorOf();
  coordinator.begin(0, testBase);
  await assert.rejects(coordinator.decision(AbortSignal.abort(new Error('stop'))), /stop/);
  const abort = new AbortController();
  const decision = coordinator.decision(abort.signal).catch((error: Error) => error.message);
  assert.equal(await asked(decision), 'waiting');
  abort.abort(new Error('stop'));
  assert.equal(await asked(decision), 'stop');
});

test('blobs of a decided list, in its order; none when one is nowhere, or the node stops', async () => {
  const { coordinator, application, listOf, asked, keys, network } = coordinatorOf();
  coordinator.begin(0, testBase);
  const decoded = decodeRoundList(networkId, listOf([1, 2, 3]));
  assert.ok(decoded.ok);
  application.decided(block(encodeRoundList(decoded.value)));
  const blobs = await asked(coordinator.blobsOf(decoded.value.contributions, never));
  assert.ok(blobs !== 'waiting' && blobs);
  assert.deepEqual(
    blobs.map((blob) => sha256Hex(blob)),
    decoded.value.contributions.map(({ blobHash }) => blobHash),
  );
  const withheld = draw(0, [announced(keys[1]!, blobOf(99))]).contributions;
  assert.equal(await asked(coordinator.blobsOf(withheld, never)), undefined);
  network.link = () => ({ delayMs: 1, lost: true });
  const abort = new AbortController();
  const stalled = coordinator.blobsOf([announced(keys[2]!, blobOf(98))], abort.signal);
  assert.equal(await asked(stalled, 100), 'waiting');
  abort.abort();
  assert.equal(await asked(stalled, 0), undefined);
});

test('how long a round takes is learnt from rounds begun with the others only', async () => {
  const { coordinator, application, listOf, contribute, run } = coordinatorOf();
  coordinator.begin(0, testBase);
  await run(10_000);
  for (const index of [1, 2, 3]) await contribute(index);
  await run(100);
  assert.equal(coordinator.isLate(), false, 'nothing is known yet');
  application.decided(block(listOf([1, 2, 3])));
  coordinator.begin(1, nextBase);
  await run(9_000);
  assert.equal(coordinator.isLate(), false);
  await run(6_000);
  assert.equal(coordinator.isLate(), true);
  // A state fetched: rounds 5 and on, of which the first is joined near its end.
  coordinator.begin(5, testBase);
  for (const index of [1, 2, 3]) await contribute(index, blobOf(index), { round: 5 });
  await run(100);
  application.decided(block(listOf([1, 2, 3], { round: 5 })));
  coordinator.begin(6, nextBase);
  await run(9_000);
  assert.equal(coordinator.isLate(), false, 'a round seen for 100 ms does not make 9 s late');
});

test('closed, it neither wakes nor listens', async () => {
  const { coordinator, contribute, run, woken, here } = coordinatorOf();
  coordinator.begin(0, testBase);
  for (const index of [0, 1, 2]) await contribute(index);
  await coordinator.contribute(blobOf(1), 4);
  await run(10);
  coordinator.close();
  woken();
  await contribute(3);
  await run(600_000);
  assert.equal(woken(), false);
  assert.ok(!here().includes(3));
});
