/** A replica of one stage of several: its part of a step, of a round and of a state, on the interpreter. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { accepted, checkTensors, trainMicrobatch } from '../../test/stage-parity.ts';
import { tinyBatch, tinyConfig, tinyReplica } from '../../test/tiny-replica.ts';
import type { Outcome } from '../std/outcome.ts';
import type { ReplicaSettings } from './local-replica.ts';
import type { StageReplica } from './replica.ts';

const config = { ...tinyConfig, layers: 2 };
const rows = tinyConfig.width * 16;
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);

/** The two stages, each with a plan of its own as `planHash` gives it. */
function pair(settings: Partial<ReplicaSettings> = {}): Promise<StageReplica[]> {
  const stage = (stageIndex: number) =>
    tinyReplica({
      config,
      stages: 2,
      stageIndex,
      plan: new Uint8Array(32).fill(40 + stageIndex),
      ...settings,
    });
  return Promise.all([stage(0), stage(1)]);
}

async function step(
  stages: readonly StageReplica[],
  ids: readonly string[],
  path = 'driver',
): Promise<string[]> {
  for (const [i, id] of ids.entries()) await trainMicrobatch(stages, id, tinyBatch(i), path);
  const codes: string[] = [];
  for (const stage of stages) {
    const prepared = await stage.prepareStep({ path, ids });
    codes.push(codeOf(prepared));
    if (prepared.ok)
      codes.push(codeOf(await stage.applyStep({ path, learningRate: 1e-2, gradientScale: 1 / ids.length })));
  }
  return codes;
}

test('each stage says what it holds; together they hold what the whole model does', async () => {
  const whole = await tinyReplica({ config });
  const stages = await pair();
  const infos = await Promise.all(stages.map((stage) => stage.info()));
  assert.deepEqual(
    infos.map(({ stage }) => stage),
    [
      { index: 0, count: 2, firstLayer: 0, endLayer: 1, embedding: true, head: false },
      { index: 1, count: 2, firstLayer: 1, endLayer: 2, embedding: false, head: true },
    ],
  );
  const { parameters, flatLength, stage } = await whole.info();
  assert.deepEqual(stage, { index: 0, count: 1, firstLayer: 0, endLayer: 2, embedding: true, head: true });
  assert.equal(infos[0]!.parameters + infos[1]!.parameters, parameters);
  assert.equal(infos[0]!.flatLength + infos[1]!.flatLength, flatLength);
  const parts = await Promise.all(stages.map((one) => one.exportWeights()));
  checkTensors({ ...parts[0], ...parts[1] }, await whole.exportWeights());
});

test('what needs the whole model is refused by a stage', async () => {
  const [first, last] = await pair();
  const whole = { code: 'not-whole-model' };
  await assert.rejects(first!.trainStep([tinyBatch(0)], 1e-2), whole);
  await assert.rejects(last!.evaluate([tinyBatch(0)]), whole);
  await assert.rejects(first!.generate({ prompt: [1], tokensMax: 1, temperature: 0, seed: 1 }), whole);
  await assert.rejects(last!.evaluateRows(new Float32Array(rows)), { code: 'no-rows' });
  await assert.rejects(first!.evaluateLoss(tinyBatch(0).tokens, tinyBatch(0).labels), { code: 'no-loss' });
  await assert.rejects(tinyReplica({ stages: 2 }), { code: 'bad-stages' });
  const [wrongEntry, wrongTarget] = [
    await last!.forward({ path: 'p', id: 'a', entry: tinyBatch(0).tokens }),
    await first!.backward({ path: 'p', id: 'a', target: tinyBatch(0).labels }),
  ];
  assert.deepEqual([codeOf(wrongEntry), codeOf(wrongTarget)], ['wrong-shape', 'wrong-shape']);
});

test('an applied step counts as one of the round, and after the contribution there is none', async () => {
  const stages = await pair();
  assert.deepEqual(await step(stages, ['a', 'b']), ['accepted', 'accepted', 'accepted', 'accepted']);
  const [first] = stages;
  assert.equal((await first!.position()).step, 1);
  await trainMicrobatch(stages, 'c', tinyBatch(3));
  accepted(await first!.prepareStep({ path: 'driver', ids: ['c'] }));
  const { blob } = await first!.contribute();
  const applied = await first!.applyStep({ path: 'driver', learningRate: 1e-2, gradientScale: 1 });
  assert.equal(codeOf(applied), 'contributed');
  assert.equal(codeOf(await first!.prepareStep({ path: 'driver', ids: ['c'] })), 'accepted');
  assert.equal((await first!.position()).step, 1);
  assert.deepEqual((await first!.contribute()).blob, blob);
});

test('a round of a stage closes like any other, and forgets what its microbatches had summed', async () => {
  const [one, other] = [await pair(), await pair()];
  await step(one, ['a']);
  await step(other, ['a', 'b']);
  await trainMicrobatch(one, 'left', tinyBatch(5));
  for (const index of [0, 1]) {
    const contributions = [
      { nodeId: 'one', batches: 1, blob: (await one[index]!.contribute()).blob },
      { nodeId: 'other', batches: 2, blob: (await other[index]!.contribute()).blob },
    ];
    const hashes = new Set<string>();
    for (const [ownNodeId, pairs] of [
      ['one', one],
      ['other', other],
    ] as const) {
      const before = (await pairs[index]!.position()).stateHash;
      const closed = accepted(await pairs[index]!.closeRound({ round: 0, contributions, ownNodeId }));
      assert.notEqual(closed.position.stateHash, before);
      hashes.add(closed.position.stateHash);
    }
    assert.equal(hashes.size, 1);
    assert.equal(
      codeOf(await one[index]!.prepareStep({ path: 'driver', ids: ['left'] })),
      'unknown-microbatch',
    );
  }
  assert.notEqual((await one[0]!.position()).stateHash, (await one[1]!.position()).stateHash);
  assert.deepEqual(await step(one, ['a']), ['accepted', 'accepted', 'accepted', 'accepted']);
});

test('a path beside the first has the same sums to the last bit', async () => {
  const [alone, beside] = [await pair(), await pair()];
  const ids = ['a', 'b', 'c'];
  // The first sum is in use by another path, which is then given up.
  await trainMicrobatch(beside, 'x', tinyBatch(9), 'first');
  await trainMicrobatch(beside, 'y', tinyBatch(10), 'first');
  for (let round = 0; round < 2; round++) {
    await step(alone, ids);
    await step(beside, ids, 'second');
    for (const [i, stage] of alone.entries())
      checkTensors((await beside[i]!.snapshot()).tensors, (await stage.snapshot()).tensors);
  }
  const prepared = accepted(await beside[0]!.prepareStep({ path: 'first', ids: ['x', 'y'] }));
  assert.ok(
    prepared.every((square) => square > 0),
    'and the first is still there',
  );
  await beside[0]!.discard({ path: 'first' });
  assert.equal(codeOf(await beside[0]!.prepareStep({ path: 'first', ids: ['x'] })), 'unknown-microbatch');
});

test('a stage goes on from its snapshot with the same bits, and takes none of another stage', async () => {
  const stages = await pair();
  await step(stages, ['a', 'b']);
  const again = await pair();
  for (const [i, stage] of stages.entries()) {
    const snapshot = await stage.snapshot();
    assert.equal(codeOf(await again[1 - i]!.restore(snapshot)), 'snapshot-mismatch');
    assert.equal(codeOf(await again[i]!.restore(snapshot)), 'accepted');
  }
  await step(stages, ['c']);
  await step(again, ['c']);
  for (const [i, stage] of stages.entries()) {
    assert.deepEqual(await again[i]!.position(), await stage.position());
    checkTensors((await again[i]!.snapshot()).tensors, (await stage.snapshot()).tensors);
  }
});

test('a stage of the same shape is another stage all the same', async () => {
  const middle = (stageIndex: number) => {
    const plan = new Uint8Array(32).fill(40 + stageIndex);
    return tinyReplica({ config: { ...tinyConfig, layers: 4 }, stages: 4, stageIndex, plan });
  };
  const [second, third] = await Promise.all([middle(1), middle(2)]);
  assert.equal((await second!.info()).flatLength, (await third!.info()).flatLength);
  assert.equal(codeOf(await third!.restore(await second!.snapshot())), 'snapshot-mismatch');
});
