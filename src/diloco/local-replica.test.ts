/** The one place where weights change: a real replica of a very small model, on the interpreter. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyBatch, tinyReplica, tinySettings } from '../../test/tiny-replica.ts';
import { lossMax } from '../optim/stage-trainer.ts';
import { sha256Hex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { createBlob, decodeRange, encodeRange } from './compression/blob.ts';
import type { CodecName } from './compression/codec.ts';
import type { DecidedContribution, ReplicaSnapshot, SnapshotTensor, StageReplica } from './replica.ts';

const codecNames = ['f32', 'int8', 'int4', 'sparse'] as const;
const codeOf = (outcome: Outcome<unknown>) => (outcome.ok ? 'accepted' : outcome.code);
const kernels = createKernelMemory({ bytes: 8 << 20 });

async function trained(node: number, steps: number, settings: Parameters<typeof tinyReplica>[0] = {}) {
  const replica = await tinyReplica(settings);
  await train(replica, node, 0, steps);
  return replica;
}

async function train(replica: StageReplica, node: number, from: number, steps: number): Promise<number[]> {
  const losses: number[] = [];
  for (let step = from; step < from + steps; step++)
    losses.push((await replica.trainStep([tinyBatch(step, node)], 1e-2)).loss);
  return losses;
}

async function entry(replica: StageReplica, nodeId: string, batches = 2): Promise<DecidedContribution> {
  return { nodeId, batches, blob: (await replica.contribute()).blob };
}

async function close(
  replica: StageReplica,
  contributions: readonly DecidedContribution[],
  ownNodeId: string,
) {
  const { round } = await replica.position();
  const closed = await replica.closeRound({ round, contributions, ownNodeId });
  assert.ok(closed.ok);
  return closed.value;
}

const tensor = async (replica: StageReplica, name: SnapshotTensor) =>
  (await replica.snapshot()).tensors[name];
const isZero = (values: Float32Array) => values.every((value) => value === 0);

function decode(codec: CodecName, blob: Uint8Array, length: number): Float32Array {
  const position = kernels.mark();
  const flat = kernels.allocF32(length);
  decodeRange(blob, { codec, length }, 0, flat, kernels);
  const copy = flat.slice();
  kernels.reset(position);
  return copy;
}

for (const compression of codecNames) {
  const outer = { ...tinySettings.outer, compression };

  test(`${compression}: who closes the same list stands on the same state, whatever it did itself`, async () => {
    const replicas = [
      await trained(0, 2, { outer }),
      await trained(1, 2, { outer }),
      await trained(2, 1, { outer }),
    ];
    const idle = await tinyReplica({ outer });
    const list = [];
    for (const [i, replica] of replicas.entries()) list.push(await entry(replica, `n${i}`, i === 2 ? 1 : 2));
    // One that was late: it trains, and is not on the list.
    const late = await trained(3, 2, { outer });
    const before = (await idle.position()).stateHash;
    const hashes = new Set<string>();
    for (const [i, replica] of [...replicas, idle, late].entries())
      hashes.add((await close(replica, list, `n${i}`)).position.stateHash);
    assert.equal(hashes.size, 1);
    assert.ok(!hashes.has(before));
    for (const replica of replicas)
      assert.deepEqual(await tensor(replica, 'weights'), await tensor(idle, 'base'));
  });

  test(`${compression}: a contribution is compress(w_r − w_local, e), bit for bit, however often it is asked for`, async () => {
    const replica = await trained(0, 2, { outer });
    const [base, weights] = [await tensor(replica, 'base'), await tensor(replica, 'weights')];
    const first = await replica.contribute();
    assert.deepEqual(await replica.contribute(), first);
    assert.equal(first.blobHash, sha256Hex(first.blob));
    assert.equal(codeOf(await replica.screen(first.blob, first.blobHash)), 'accepted');
    const position = kernels.mark();
    const delta = kernels.allocF32(base.length);
    for (let i = 0; i < delta.length; i++) delta[i] = base[i]! - weights[i]!;
    const expected = createBlob(compression, delta.length);
    encodeRange(expected, { codec: compression, length: delta.length }, 0, delta, kernels);
    kernels.reset(position);
    assert.deepEqual(first.blob, expected);
  });

  test(`${compression}: error feedback keeps what was not taken in`, async () => {
    const included = await trained(0, 2, { outer });
    const excluded = await trained(0, 2, { outer });
    const other = await trained(1, 2, { outer });
    const own = await entry(included, 'own');
    await entry(excluded, 'own');
    const whole = await tensor(included, 'errorFeedback');
    await close(included, [own, await entry(other, 'other')], 'own');
    await close(excluded, [await entry(other, 'other')], 'own');
    assert.deepEqual(await tensor(excluded, 'errorFeedback'), whole, 'left out: all of it');
    const left = await tensor(included, 'errorFeedback');
    const sent = decode(compression, own.blob, whole.length);
    assert.ok(left.every((value, i) => value === Math.fround(whole[i]! - sent[i]!)));
    assert.equal(isZero(left), compression === 'f32', 'counted: what the codec lost');
  });
}

test('the work of a node that was late is in its next contribution', async () => {
  const outer = { ...tinySettings.outer, compression: 'f32' as const };
  const late = await trained(0, 2, { outer });
  const base = await tensor(late, 'base');
  const local = await tensor(late, 'weights');
  const delta = base.map((value, i) => value - local[i]!);
  const other = await trained(1, 2, { outer });
  await close(late, [await entry(other, 'other')], 'late');
  const { blob } = await late.contribute();
  assert.deepEqual(decode('f32', blob, delta.length), delta);
});

test('a contribution that screening refused is dropped; one that was a duplicate counts as taken in', async () => {
  const refused = await trained(0, 2);
  const own = await entry(refused, 'own');
  const others = [await entry(await trained(1, 2), 'a'), await entry(await trained(2, 2), 'b')];
  const huge = createBlob('int8', (await refused.info()).flatLength);
  encodeRange(
    huge,
    { codec: 'int8', length: (await refused.info()).flatLength },
    0,
    kernels.allocF32((await refused.info()).flatLength).fill(1e6),
    kernels,
  );
  const result = await close(refused, [...others, { ...own, blob: huge }], 'own');
  assert.deepEqual(
    result.rejected.map(({ node, code }) => `${node} ${code}`),
    ['own norm-bound'],
  );
  assert.ok(isZero(await tensor(refused, 'errorFeedback')));
  const copied = await trained(0, 2);
  const original = await entry(copied, 'own');
  const twice = await close(copied, [{ ...original, nodeId: 'copycat' }, ...others, original], 'own');
  assert.deepEqual(
    twice.rejected.map(({ node, code }) => `${node} ${code}`),
    ['own duplicate'],
  );
  const left = await tensor(copied, 'errorFeedback');
  assert.ok(!isZero(left) && left.every((value) => Math.abs(value) < 1e-2));
});

test('what cannot be closed changes nothing: another round, bytes that are no contribution', async () => {
  const replica = await trained(0, 2);
  const own = await entry(replica, 'own');
  const before = await replica.snapshot();
  const request = { round: 0, contributions: [own], ownNodeId: 'own' };
  const attempt = async (change: Partial<typeof request>) =>
    codeOf(await replica.closeRound({ ...request, ...change }));
  assert.equal(await attempt({ round: 1 }), 'wrong-round');
  for (const blob of [
    own.blob.subarray(1),
    new Uint8Array(own.blob.length),
    new Uint8Array(own.blob.length).fill(255),
  ])
    assert.equal(await attempt({ contributions: [own, { ...own, nodeId: 'x', blob }] }), 'unsound-blob');
  assert.deepEqual(await replica.snapshot(), before);
  assert.equal(await attempt({}), 'accepted');
});

test('screening knows the hash and the bytes', async () => {
  const replica = await trained(0, 1);
  const { blob } = await replica.contribute();
  assert.equal(codeOf(await replica.screen(blob, '0'.repeat(64))), 'hash-mismatch');
  for (const wrong of [
    blob.subarray(0, -1),
    new Uint8Array([...blob, 0]),
    new Uint8Array(blob.length).fill(0xff),
  ])
    assert.notEqual(codeOf(await replica.screen(wrong, sha256Hex(wrong))), 'accepted');
});

test('an empty round and a round of zeros leave the weights where they are', async () => {
  const replica = await tinyReplica();
  const base = await tensor(replica, 'base');
  const zero = await entry(await tinyReplica(), 'zero');
  const { rejected } = await close(replica, [zero], 'own');
  assert.equal(rejected[0]?.code, 'zero');
  assert.deepEqual(await tensor(replica, 'base'), base);
  assert.equal((await replica.position()).round, 1);
});

async function leavesOf(replica: StageReplica): Promise<Uint8Array[]> {
  const [{ round }, { stateLeaves }] = [await replica.position(), await replica.info()];
  const leaves: Uint8Array[] = [];
  for (let index = 0; index < stateLeaves; index++)
    leaves.push((await replica.readLeaf(round, index))!.bytes);
  return leaves;
}

test('a fetched state leaves no work that has already counted', async () => {
  const ahead = await trained(1, 2);
  await close(ahead, [await entry(ahead, 'a')], 'a');
  const { stateHash } = await ahead.position();
  const leaves = await leavesOf(ahead);
  const feedbackAfter = async (counted: boolean | null) => {
    const replica = await trained(0, 2);
    await replica.contribute();
    assert.equal(codeOf(await replica.install({ round: 1, leaves, stateHash, counted })), 'accepted');
    return (await tensor(replica, 'errorFeedback')).reduce((sum, value) => sum + value * value, 0);
  };
  const whole = await feedbackAfter(false);
  assert.ok(whole > 0, 'what did not count is carried');
  assert.ok((await feedbackAfter(true)) < 0.01 * whole, 'what counted is not, but for what the codec lost');
  assert.equal(await feedbackAfter(null), 0, 'what may have counted is dropped');
});

test('installing a state: all of it, or nothing changes; local work becomes error feedback', async () => {
  const ahead = await trained(1, 2);
  await close(ahead, [await entry(ahead, 'a')], 'a');
  const target = await ahead.position();
  const leaves = await leavesOf(ahead);
  const replica = await trained(0, 2);
  const before = await replica.snapshot();
  const wrong = leaves.map((leaf) => leaf.slice());
  wrong.at(-1)![5]! ^= 1;
  const attempt = async (some: readonly Uint8Array[], round = 1, hash = target.stateHash) =>
    codeOf(await replica.install({ round, leaves: some, stateHash: hash, counted: false }));
  assert.equal(await attempt(wrong), 'state-mismatch');
  assert.equal(await attempt(leaves, 2), 'state-mismatch');
  assert.equal(await attempt(leaves, 1, '0'.repeat(64)), 'state-mismatch');
  assert.equal(await attempt(leaves.slice(1)), 'wrong-shape');
  assert.equal(await attempt(leaves.map((leaf) => leaf.subarray(4))), 'wrong-shape');
  assert.deepEqual(await replica.snapshot(), before);
  assert.equal(await attempt(leaves), 'accepted');
  const after = await replica.snapshot();
  assert.deepEqual(after.position, { round: 1, step: 0, optimizerSteps: 2, stateHash: target.stateHash });
  assert.deepEqual(after.tensors.base, await tensor(ahead, 'base'));
  assert.deepEqual(after.tensors.weights, after.tensors.base);
  assert.deepEqual(after.tensors.firstMoments, before.tensors.firstMoments);
  const work = before.tensors.base.map((value, i) => value - before.tensors.weights[i]!);
  assert.deepEqual(after.tensors.errorFeedback, work);
});

test('leaves are those of the round it stands in', async () => {
  const replica = await tinyReplica();
  assert.ok(await replica.readLeaf(0, 0));
  assert.equal(await replica.readLeaf(1, 0), undefined);
  assert.equal(await replica.readLeaf(0, (await replica.info()).stateLeaves), undefined);
});

test('restored in the middle of a round, it goes on with the same losses and contributes the same bytes', async () => {
  const replica = await trained(0, 2);
  await close(replica, [await entry(replica, 'own'), await entry(await trained(1, 2), 'b')], 'own');
  await train(replica, 0, 2, 1);
  const snapshot = await replica.snapshot();
  const expected = await train(replica, 0, 3, 3);
  const { blob } = await replica.contribute();
  const contributed = await replica.snapshot();
  const again = await tinyReplica();
  assert.equal(codeOf(await again.restore(snapshot)), 'accepted');
  assert.deepEqual(await again.position(), { ...snapshot.position, contributed: false });
  assert.deepEqual(await train(again, 0, 3, 3), expected);
  assert.deepEqual((await again.contribute()).blob, blob);
  const waiting = await tinyReplica();
  await waiting.restore(contributed);
  assert.equal((await waiting.position()).contributed, true);
  assert.deepEqual((await waiting.contribute()).blob, blob);
  await assert.rejects(waiting.trainStep([tinyBatch(9)], 1e-2), /after the contribution/);
});

test('a snapshot of another model, or one whose tensors are not its hash’s, changes nothing', async () => {
  const replica = await trained(0, 2);
  const before = await replica.snapshot();
  const elsewhere = await (await trained(1, 1, { plan: new Uint8Array(32).fill(9) })).snapshot();
  const { base, ...others } = before.tensors;
  const damaged = base.slice();
  damaged[3]! += 1;
  const wrong: unknown[] = [
    elsewhere,
    { ...before, tensors: { ...others, base: damaged } },
    { ...before, tensors: { ...others, base: base.subarray(1) } },
    { ...before, tensors: others },
  ];
  for (const snapshot of wrong)
    assert.equal(codeOf(await replica.restore(snapshot as ReplicaSnapshot)), 'snapshot-mismatch');
  assert.deepEqual(await replica.snapshot(), before);
});

test('a model that has overflowed has the largest loss there is, and its rounds close', async () => {
  const replica = await tinyReplica({ outer: { ...tinySettings.outer, aggregator: 'mean' } });
  for (let round = 0; round < 2; round++) {
    await replica.trainStep([tinyBatch(0)], Number.POSITIVE_INFINITY);
    await close(replica, [await entry(replica, 'a')], 'a');
  }
  await replica.trainStep([tinyBatch(0)], Number.POSITIVE_INFINITY);
  assert.equal(await replica.evaluate([tinyBatch(1)], 'weights'), lossMax);
});

test('a step that overflows spoils the round, not the node', async () => {
  const replica = await tinyReplica();
  await replica.trainStep([tinyBatch(0)], Number.POSITIVE_INFINITY);
  const nothing = await replica.contribute();
  assert.equal(
    codeOf(await replica.screen(nothing.blob, nothing.blobHash)),
    'accepted',
    'zeros, so that the round closes',
  );
  await close(replica, [await entry(await trained(1, 2), 'b')], 'own');
  const losses = await train(replica, 0, 1, 2);
  assert.ok(losses.every(Number.isFinite));
  const { blob, blobHash } = await replica.contribute();
  assert.equal(codeOf(await replica.screen(blob, blobHash)), 'accepted');
});

test('calls run one after another, in the order they were made', async () => {
  const replica = await tinyReplica();
  const losses = await Promise.all([0, 1, 2].map((step) => replica.trainStep([tinyBatch(step)], 1e-2)));
  const alone = await tinyReplica();
  assert.deepEqual(
    losses.map(({ loss }) => loss),
    await train(alone, 0, 0, 3),
  );
});
