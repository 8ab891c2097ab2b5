/** What a replica records of its rounds: hashes that its states have, copies within the budget, and replays of the rest. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyBatch, tinyReplica, tinySettings } from '../../test/tiny-replica.ts';
import { toHex } from '../std/bytes.ts';
import { merkleLeaf } from '../std/merkle.ts';
import { decodeStateIndex, encodeStateIndex, hashOfIndex, leavesPerTensor } from './local-state.ts';
import type { ReplayedMicrobatches } from './replay.ts';
import type { StageReplica } from './replica.ts';

const settings = { ...tinySettings, recording: { intervalSteps: 2 } };

async function trainRound(replica: StageReplica, steps: number) {
  const { round, step } = await replica.position();
  for (let made = step; made < steps; made++) await replica.trainStep([tinyBatch(10 * round + made)], 1e-2);
}

async function endRound(replica: StageReplica, listed = true) {
  const { round } = await replica.position();
  const { blob } = await replica.contribute();
  const contributions = listed ? [{ nodeId: 'me', batches: 1, blob }] : [];
  assert.ok((await replica.closeRound({ round, ownNodeId: 'me', contributions })).ok);
}

async function recordOf(replica: StageReplica, round: number) {
  const record = await replica.record(round);
  assert.ok(record);
  return record;
}

test('hashes stand at the start, every interval and the end; recording changes nothing', async () => {
  const replica = await tinyReplica(settings);
  const plain = await tinyReplica();
  for (const one of [replica, plain]) {
    await trainRound(one, 5);
    await endRound(one);
    await trainRound(one, 2);
  }
  assert.deepEqual(
    (await recordOf(replica, 0)).boundaries.map(({ step, optimizerSteps }) => [step, optimizerSteps]),
    [
      [0, 0],
      [2, 2],
      [4, 4],
      [5, 5],
    ],
  );
  assert.deepEqual(
    (await recordOf(replica, 1)).boundaries.map(({ step, optimizerSteps }) => [step, optimizerSteps]),
    [
      [0, 5],
      [2, 7],
    ],
  );
  assert.equal(await plain.record(0), undefined);
  assert.deepEqual(await replica.snapshot(), await plain.snapshot());
});

test('the index gives the hash, its leaves are the state, and those of a round’s start are w_r', async () => {
  const replica = await tinyReplica(settings);
  await trainRound(replica, 2);
  await endRound(replica, false);
  const snapshot = await replica.snapshot();
  const { boundaries, base } = await recordOf(replica, 1);
  const hash = boundaries[0]!.hash;
  const { flatLength } = await replica.info();
  const indexOf = async (stateHash: string) => {
    const encoded = await replica.evidenceIndex(stateHash);
    const index = encoded && decodeStateIndex(encoded);
    assert.ok(index?.ok);
    assert.equal(hashOfIndex(tinySettings.plan, index.value), stateHash);
    assert.deepEqual(encodeStateIndex(index.value), encoded);
    return index.value.leaves;
  };
  const leaves = await indexOf(hash);
  assert.equal(leaves.length, 4 * leavesPerTensor(flatLength));
  for (const [i, name] of (
    ['weights', 'firstMoments', 'secondMoments', 'errorFeedback'] as const
  ).entries()) {
    const bytes = await replica.evidenceLeaf(hash, i);
    assert.deepEqual(bytes, new Uint8Array(snapshot.tensors[name].slice().buffer));
    assert.equal(toHex(merkleLeaf(bytes!)), toHex(leaves[i]!));
  }
  assert.deepEqual((await indexOf(base))[0], leaves[0]);
  assert.deepEqual(await replica.evidenceLeaf(base, 0), await replica.evidenceLeaf(hash, 0));
  for (const [of, index] of [
    [base, 1],
    [hash, 4],
    [hash, -1],
    [hash, 0.5],
    ['00'.repeat(32), 0],
  ] as const)
    assert.equal(await replica.evidenceLeaf(of, index), undefined);
});

test('a small budget keeps the ends of a round, and a replay brings back what lies between', async () => {
  const replica = await tinyReplica({ ...settings, recording: { intervalSteps: 1, bytesMax: 1 } });
  await trainRound(replica, 6);
  const before = await replica.snapshot();
  const kept = async () =>
    (await recordOf(replica, 0)).boundaries.filter((one) => one.kept).map(({ step }) => step);
  assert.deepEqual(await kept(), [0, 6]);
  const { boundaries } = await recordOf(replica, 0);
  const wanted = boundaries[3]!.hash;
  assert.equal(await replica.evidenceLeaf(wanted, 0), undefined);
  const steps = (to: number, spoilt = -1) =>
    Array.from({ length: to }, (_, step) => ({
      batches: [tinyBatch(step === spoilt ? 99 : step)],
      learningRate: 1e-2,
    }));
  const other = await replica.replay({ round: 0, from: 0, steps: steps(3, 1) });
  assert.ok(!other.ok && other.code === 'replay-mismatch');
  assert.ok((await replica.replay({ round: 0, from: 0, steps: steps(3) })).ok);
  assert.deepEqual(await kept(), [0, 2, 3, 6]);
  assert.ok(await replica.evidenceLeaf(wanted, 0));
  const none = await replica.replay({ round: 0, from: 5, steps: steps(1) });
  assert.ok(!none.ok && none.code === 'not-kept');
  // Training goes on as if nothing had been replayed.
  assert.deepEqual(await replica.snapshot(), before);
});

test('old rounds are thinned out before new ones, and the oldest go when even their ends are too much', async () => {
  const { flatLength } = await (await tinyReplica()).info();
  const keptWith = async (states: number) => {
    const recording = { intervalSteps: 1, bytesMax: states * 3 * 4 * flatLength };
    const replica = await tinyReplica({ ...settings, recording });
    const counts = [];
    for (let round = 0; round < 3; round++) {
      await trainRound(replica, 4);
      await endRound(replica);
    }
    for (let round = 0; round < 3; round++)
      counts.push((await replica.record(round))?.boundaries.filter((one) => one.kept).length ?? 0);
    return counts;
  };
  assert.deepEqual(await keptWith(100), [5, 5, 5]);
  const [oldest, , newest] = await keptWith(12);
  assert.equal(oldest, 2);
  assert.ok(newest! > 2);
  assert.deepEqual(await keptWith(1), [0, 0, 2]);
});

test('who cannot show where its moments come from begins a new chain without them', async () => {
  const replica = await tinyReplica(settings);
  await trainRound(replica, 3);
  const middle = await replica.snapshot();
  const again = await tinyReplica(settings);
  assert.ok((await again.restore(middle)).ok);
  await trainRound(again, 4);
  assert.equal(await again.record(0), undefined);
  await endRound(again, false);
  // Steps that were logged are made again with the same moments first; it only claims nothing.
  assert.equal((await again.snapshot()).position.optimizerSteps, 4);
  assert.equal(await again.record(1), undefined);
  await again.breakChain();
  await trainRound(again, 1);
  await endRound(again, false);
  const start = await again.snapshot();
  assert.equal(start.position.optimizerSteps, 0);
  for (const name of ['firstMoments', 'secondMoments', 'errorFeedback'] as const)
    assert.ok(start.tensors[name].every((x) => x === 0));
  // At a round's start nothing is lost.
  await trainRound(replica, 4);
  await endRound(replica);
  const whole = await tinyReplica(settings);
  assert.ok((await whole.restore(await replica.snapshot())).ok);
  assert.equal(
    (await recordOf(whole, 1)).boundaries[0]!.hash,
    (await recordOf(replica, 1)).boundaries[0]!.hash,
  );
});

test('a stage of several makes its steps again from the rows that reached it, those of two Drivers in turn too', async () => {
  const config = { ...tinySettings.config, layers: 2 };
  const recording = { intervalSteps: 3, bytesMax: 1 };
  const stage = await tinyReplica({ ...settings, recording, config, stages: 2, stageIndex: 1 });
  const rowsOf = (mark: number) =>
    new Float32Array(tinyBatch(0).labels.length * config.width).map((_, i) => Math.sin(i + mark));
  const backward = async (path: string, mark: number) => {
    const call = { path, id: String(mark), entry: rowsOf(mark), target: tinyBatch(mark).labels };
    assert.ok((await stage.backward(call)).ok);
  };
  const steps: ReplayedMicrobatches[] = [];
  const settingsOfStep = { learningRate: 1e-2, gradientScale: 0.5 };
  const step = async (path: string, ...marks: number[]) => {
    const ids = marks.map(String);
    assert.ok((await stage.prepareStep({ path, ids })).ok);
    const taken = await stage.applyStep({ path, ...settingsOfStep });
    assert.ok(taken.ok);
    const microbatches = taken.value.map(({ id, summedAt }) => ({
      entry: rowsOf(Number(id)),
      target: tinyBatch(Number(id)).labels,
      summedAt,
    }));
    steps.push({ microbatches, ...settingsOfStep });
    return taken.value.map(({ id, madeAt, summedAt }) => [Number(id), madeAt, summedAt]);
  };
  // A Driver's rows come before another one's step, and its step after: three times before the same boundary, once over it.
  for (const mark of [0, 1]) await backward('a', mark);
  for (const mark of [2, 3]) await backward('b', mark);
  assert.deepEqual(await step('b', 2, 3), [
    [2, 0, 0],
    [3, 0, 0],
  ]);
  await backward('b', 4);
  assert.deepEqual(await step('a', 0, 1), [
    [0, 0, 0],
    [1, 0, 0],
  ]);
  await backward('b', 5);
  await backward('a', 6);
  assert.deepEqual(await step('b', 5, 4), [
    [4, 1, 1],
    [5, 2, 2],
  ]);
  await backward('a', 7);
  assert.deepEqual(await step('a', 6, 7), [
    [7, 3, 3],
    [6, 2, 3],
  ]);
  const before = await stage.snapshot();
  await backward('a', 8);
  await step('a', 8);
  for (let mark = 9; mark < 12; mark++) {
    await backward('a', mark);
    await step('a', mark);
  }
  const { boundaries } = await recordOf(stage, 0);
  assert.deepEqual(
    boundaries.map((one) => [one.step, one.kept]),
    [
      [0, true],
      [3, false],
      [6, true],
    ],
  );
  const newest = await stage.snapshot();
  assert.ok((await stage.replay({ round: 0, from: 0, steps: steps.slice(0, 3) })).ok);
  assert.ok((await recordOf(stage, 0)).boundaries[1]!.kept);
  assert.deepEqual(await stage.replay({ round: 0, from: 3, steps: steps.slice(3, 6) }), {
    ok: true,
    value: undefined,
  });
  assert.deepEqual(await stage.snapshot(), newest);
  assert.notDeepEqual(newest, before);
  const codeOf = async (from: number, replayed: ReplayedMicrobatches[]) => {
    const outcome = await stage.replay({ round: 0, from, steps: replayed });
    return outcome.ok ? 'ok' : outcome.code;
  };
  const others = steps.slice(0, 3).map((one, i) => (i === 1 ? steps[0]! : one));
  assert.equal(await codeOf(0, others), 'replay-mismatch');
  const early = steps.slice(3, 6).map((one) => ({
    ...one,
    microbatches: one.microbatches.map((microbatch) => ({ ...microbatch, summedAt: 1 })),
  }));
  assert.equal(await codeOf(3, early), 'not-kept', 'weights of before');
  assert.deepEqual(await stage.snapshot(), newest, 'whatever comes of it');
});

test('a broken chain begins anew with the next round, and what was recorded before stays', async () => {
  const replica = await tinyReplica(settings);
  await trainRound(replica, 2);
  await endRound(replica, false);
  await trainRound(replica, 2);
  await replica.breakChain();
  assert.equal(await replica.record(1), undefined);
  await trainRound(replica, 4);
  await endRound(replica, false);
  assert.equal((await recordOf(replica, 0)).boundaries.length, 2);
  const { tensors, position } = await replica.snapshot();
  assert.equal(position.optimizerSteps, 0);
  for (const name of ['firstMoments', 'secondMoments', 'errorFeedback'] as const)
    assert.ok(tensors[name].every((x) => x === 0));
  assert.equal((await recordOf(replica, 2)).boundaries[0]!.optimizerSteps, 0);
});
