/** One node's part in closing the rounds of two stages at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testKeys } from '../../test/consensus-group.ts';
import { block, context, coordinatorOf, never, nextBase } from '../../test/round-coordinator.ts';
import { announced, blobOf, networkId, shapes, testBase } from '../../test/virtual-network.ts';
import { type Announcement, contributionTopic, encodeAnnouncement } from '../ledger/announcement.ts';
import { utf8 } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { decodeRoundList, drawRoundList, encodeRoundList, shareOf } from './round-list.ts';

const base1 = sha256Hex(utf8('base of stage 1'));

/**
 * Six nodes, of which the first four are members: 0 and 2 of stage 0, 1 and 3 of stage 1, as the others would be. Node 0
 * coordinates, and believes `agreed` of the stages.
 */
function stagedCoordinator(own = 0, agreed: readonly (string | undefined)[] = []) {
  const keys = testKeys(6);
  const members = new Map(keys.slice(0, 4).map(({ nodeId }, i) => [nodeId, i % 2]));
  const all = coordinatorOf(6, 4, {
    shapes,
    members: own === 0 ? members : new Map([...members].slice(1)),
    agreedBase: (_round, stage) => agreed[stage],
  });
  const made = (index: number, base = index % 2 === 0 ? testBase : base1) => {
    const stage = index % 2;
    const one = blobOf(index + 1, shapes[stage]);
    all.shelves[index]!.put(0, one.blobHash, one.blob);
    return announced(keys[index]!, one, { stage, base });
  };
  const say = (index: number, base?: string) =>
    all.transports[index]!.publish(contributionTopic, encodeAnnouncement(made(index, base)));
  const draw = (announcements: readonly Announcement[]) =>
    drawRoundList({ round: 0, announcements, stages: 2, members });
  const payload = (indices: readonly number[]) => encodeRoundList(draw(indices.map((index) => made(index))));
  return { ...all, made, say, draw, payload };
}

/** Node indices by stage of a proposal. */
function listedIn(payload: Uint8Array | 'waiting' | undefined, ids: readonly string[]): number[][] {
  assert.ok(payload instanceof Uint8Array);
  const list = decodeRoundList(networkId, payload);
  assert.ok(list.ok);
  return [0, 1].map((stage) =>
    shareOf(list.value, stage)
      .contributions.map(({ nodeId }) => ids.indexOf(nodeId))
      .sort(),
  );
}

test('two stages: one decision is asked for when all that is expected of both has come', async () => {
  const { coordinator, application, say, run, woken, asked, ids } = stagedCoordinator();
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  await say(2);
  await run(1000);
  assert.equal(woken(), false);
  assert.equal(await asked(application.propose(context())), undefined, 'the other stage may still come');
  for (const index of [1, 3]) await say(index);
  await run(1000);
  assert.equal(woken(), true);
  assert.deepEqual(listedIn(await asked(application.propose(context())), ids), [
    [0, 2],
    [1, 3],
  ]);
});

test('who passes is not waited for, and a stage is complete when the rest has come', async () => {
  const { coordinator, say, run, woken, keys, transports } = stagedCoordinator();
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  await say(1);
  await run(1000);
  assert.deepEqual(
    [0, 1].map((stage) => coordinator.isComplete(stage)),
    [false, false],
  );
  const pass = (index: number, base: string) => {
    const nothing = { blob: new Uint8Array(), blobHash: '0'.repeat(64) };
    const one = announced(keys[index]!, nothing, { stage: index % 2, base, batches: 0 });
    return transports[index]!.publish(contributionTopic, encodeAnnouncement(one));
  };
  await pass(2, testBase);
  await run(1000);
  assert.deepEqual(
    [0, 1].map((stage) => coordinator.isComplete(stage)),
    [true, false],
  );
  assert.equal(woken(), false);
  await pass(3, base1);
  await run(1000);
  assert.equal(coordinator.isComplete(1), true);
  assert.equal(woken(), true);
  const guest = stagedCoordinator(1);
  guest.coordinator.begin(0, testBase);
  for (const index of [1, 3]) await guest.say(index);
  await run(1000);
  assert.equal(guest.coordinator.isComplete(1), false, 'it does not look there');
});

test('a stage whose nodes are all gone is waited for until the deadline, and then goes without', async () => {
  const { coordinator, application, say, payload, run, woken, asked, ids, transports } = stagedCoordinator();
  coordinator.begin(0, testBase);
  await run(10_000);
  await coordinator.contribute(blobOf(1), 4);
  await say(2);
  await say(1);
  await run(100);
  application.decided(block(payload([0, 2, 1])));
  coordinator.begin(1, nextBase);
  for (const index of [1, 3, 5]) await transports[index]!.close();
  await run(9_000);
  await coordinator.contribute(blobOf(1), 4);
  await run(100);
  assert.equal(woken(), false);
  await run(20_000);
  assert.equal(woken(), true);
  assert.deepEqual(listedIn(await asked(application.propose(context())), ids), [[0], []]);
});

test('no vote for a list that leaves out most of one stage, though of all it has most', async () => {
  const { coordinator, say, validate, payload, run } = stagedCoordinator();
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  for (const index of [1, 2, 3, 4]) await say(index);
  await run(1000);
  assert.equal(await validate(payload([0, 2, 4])), false);
  assert.equal(await validate(payload([1, 3])), false);
  assert.equal(await validate(payload([0, 2, 3])), true);
});

test('a list is voted for only if its bases are those this node knows', async () => {
  const wrong = sha256Hex(utf8('wrong'));
  const { coordinator, made, draw, validate, say } = stagedCoordinator(0, [undefined, base1]);
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  for (const index of [1, 2, 3]) await say(index);
  const encoded = (...of: readonly Announcement[]) => encodeRoundList(draw(of));
  assert.equal(await validate(encoded(made(2, wrong), made(1))), false, 'of its own stage');
  assert.equal(await validate(encoded(made(2), made(1, wrong))), false, 'of what the other cohort agreed on');
  assert.equal(await validate(encoded(made(2), made(1))), true);
});

test('before the other cohort has spoken, what most of its members name is believed', async () => {
  const wrong = sha256Hex(utf8('wrong'));
  for (const others of ['say otherwise', 'are gone']) {
    const { coordinator, made, draw, validate, say, run, transports } = stagedCoordinator();
    coordinator.begin(0, testBase);
    await coordinator.contribute(blobOf(1), 4);
    await say(2);
    if (others === 'are gone') await transports[3]!.close();
    else for (const index of [1, 3]) await say(index);
    await run(1000);
    const list = encodeRoundList(draw([made(2), made(1, wrong)]));
    assert.equal(await validate(list), others === 'are gone', others);
  }
});

test('of another stage those are listed whose base its cohort agreed on, or else most of its members name', async () => {
  const wrong = sha256Hex(utf8('wrong'));
  for (const agreed of [undefined, wrong]) {
    const { coordinator, application, say, run, asked, ids } = stagedCoordinator(0, [undefined, agreed]);
    coordinator.begin(0, testBase);
    await coordinator.contribute(blobOf(1), 4);
    await say(2);
    for (const index of [1, 3]) await say(index, base1);
    await say(5, wrong);
    await run(1000);
    const listed = listedIn(await asked(application.propose(context())), ids);
    assert.deepEqual(listed, [[0, 2], agreed ? [5] : [1, 3]]);
  }
});

test('closing: the own stage’s part of the list, its blobs, and what the cohort leaves out', async () => {
  const wrong = sha256Hex(utf8('wrong'));
  const { coordinator, made, draw, asked, ids } = stagedCoordinator(0, [testBase]);
  coordinator.begin(0, testBase);
  const list = draw([made(2), made(4), made(1), made(3)]);
  const closing = coordinator.closing(list);
  assert.deepEqual(closing, { contributions: list.contributions.slice(0, 2), rejected: [] });
  const blobs = await asked(coordinator.blobsOf(closing!.contributions, never));
  assert.ok(blobs !== 'waiting' && blobs);
  assert.deepEqual(
    blobs.map((blob) => sha256Hex(blob)),
    list.contributions.slice(0, 2).map(({ blobHash }) => blobHash),
  );
  assert.deepEqual(coordinator.closing(draw([made(1)])), { contributions: [], rejected: [] });
  const misled = draw([made(2, wrong), made(1)]);
  assert.deepEqual(coordinator.closing(misled), {
    contributions: [],
    rejected: [{ node: ids[2], code: 'wrong-base' }],
  });
  const unsure = stagedCoordinator();
  unsure.coordinator.begin(0, testBase);
  assert.equal(unsure.coordinator.closing(misled), undefined, 'perhaps it is this node that is wrong');
});

test('a node without a vote waits for its own stage only', async () => {
  const { coordinator, say, run, woken, here } = stagedCoordinator(1);
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 4);
  await say(1);
  await run(1000);
  assert.equal(woken(), false);
  await say(2);
  await run(1000);
  assert.equal(woken(), true);
  assert.deepEqual(here(), [0, 2]);
});

test('more steps than a round has count as a round’s', async () => {
  const { coordinator } = stagedCoordinator();
  coordinator.begin(0, testBase);
  await coordinator.contribute(blobOf(1), 45);
  await coordinator.blobsOf([], never);
  assert.deepEqual(
    coordinator.contributions().map(({ batches, stage }) => [batches, stage]),
    [[20, 0]],
  );
});
