/** Nodes that missed the end of an epoch, or several: who still finds the way, and how. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { testNetwork } from '../../test/consensus-group.ts';
import { createEpochsNetwork, epochsOf } from '../../test/epochs-network.ts';
import { decodeRun, encodeEnvelope, encodeRun } from './epoch-wire.ts';
import { defaultLimits, defaultTiming } from './limits.ts';

const view = 3 * defaultTiming.deltaMs;

test('who missed the last block of an epoch gets it from those who have gone on', async () => {
  for (const lost of ['finalize', 'everything'] as const) {
    const network = createEpochsNetwork([[0, 1, 2, 3]], 1);
    await network.openAll([0, 1, 2, 3]);
    await network.decide(1, 4);
    network.reaches = (_from, to, _epoch, message) =>
      to !== 3 || (lost === 'finalize' && message.type === 'vote' && message.vote.kind !== 'finalize');
    await network.run(100);
    assert.equal(network.nodes.get(0)!.epochs.status().epoch, 1);
    assert.equal(network.nodes.get(3)!.epochs.status().epoch, 0);
    network.reaches = () => true;
    await network.decide(2, 20 * view);
    const laggard = network.nodes.get(3)!;
    assert.deepEqual(laggard.failures, []);
    assert.deepEqual(laggard.delivered, ['0', '1', '2'], lost);
    assert.deepEqual(epochsOf(network), [3, 3, 3, 3]);
  }
});

test('a node that was away takes run after run, and hears when nothing older is left', async () => {
  const network = createEpochsNetwork([
    [0, 1, 2, 3],
    [1, 2, 3],
  ]);
  await network.openAll([0, 1, 2, 3]);
  await network.decide(5);
  const away = await network.open(5);
  await network.run(1);
  const helper = network.nodes.get(0)!.epochs;
  const codes: string[] = [];
  for (let i = 0; i < 8; i++) {
    const { epoch, decidedHeight } = away.epochs.status();
    const run = helper.decidedSince({ epoch, height: decidedHeight });
    const decoded = decodeRun(encodeRun(run), testNetwork, defaultLimits);
    assert.ok(decoded.ok);
    const adopted = away.epochs.adopt(decoded.value);
    codes.push(adopted.ok ? 'ok' : adopted.code);
    if (i % 2 === 1) await network.run(10);
  }
  assert.deepEqual(away.delivered, ['0', '1', '2', '3', '4']);
  assert.deepEqual(codes.slice(0, 4), ['ok', 'busy', 'ok', 'busy']);
  await network.kill(5);
  network.stores.delete(5);

  await network.decide(4);
  const late = await network.open(4);
  await network.run(1);
  const run = helper.decidedSince({ epoch: 0, height: 0 });
  assert.ok(run.epoch > 0);
  const adopted = late.epochs.adopt(run);
  assert.ok(!adopted.ok && adopted.code === 'epoch-pruned');
});

test('later epochs spoken of by others make a node ask, at growing intervals', async () => {
  const network = createEpochsNetwork([[0]], 1);
  await network.openAll([0, 5]);
  network.reaches = () => false;
  await network.decide(3);
  const observer = network.nodes.get(5)!;
  assert.equal(observer.epochs.status().epoch, 0);
  for (let i = 0; i < 200; i++) {
    const outcome = observer.epochs.receive('0', encodeEnvelope(7, new Uint8Array(9)));
    assert.ok(!outcome.ok && outcome.code === 'later-epoch');
    await network.run(100);
  }
  assert.ok(observer.behind.length > 2 && observer.behind.length < 12, `${observer.behind.length}`);
  assert.deepEqual(observer.behind[0], { epoch: 1, height: 0 });
});

test('the next members may be those who missed the end: a node that wants a decision and has no vote asks', async () => {
  const network = createEpochsNetwork([[0], [5]], 1);
  await network.openAll([0, 5]);
  network.reaches = () => false;
  await network.decide(1);
  network.reaches = () => true;
  const next = network.nodes.get(5)!;
  assert.equal(network.nodes.get(0)!.epochs.status().epoch, 1);
  assert.equal(next.epochs.status().epoch, 0);
  await network.run(10 * view);
  assert.ok(next.behind.length > 1 && next.behind.length < 8, `${next.behind.length}`);
  const run = network.nodes.get(0)!.epochs.decidedSince({ epoch: 0, height: 0 });
  assert.ok(next.epochs.adopt(run).ok);
  await network.run(10);
  await network.decide(1);
  assert.equal(next.epochs.status().epoch, 2);
  assert.deepEqual(next.delivered, ['0', '1']);
  assert.deepEqual(network.nodes.get(0)!.delivered, ['0', '1']);
});
