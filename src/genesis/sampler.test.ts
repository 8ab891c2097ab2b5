import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { countedDataset } from '../../test/counted-dataset.ts';
import { toHex } from '../std/bytes.ts';
import { trainingShards } from './manifest.ts';
import {
  type BatchRequest,
  batchHash,
  batchOf,
  batchPlace,
  globalBatches,
  heldOutBatches,
  shardFor,
} from './sampler.ts';

const dataset = await countedDataset('sampler', 100);
const { manifest } = dataset;
const training = trainingShards(manifest);
const plan = { batch: 3, sequence: 16, innerSteps: 5 };
const nodeId = 'ab'.repeat(32);

function request(change: Partial<BatchRequest> = {}): BatchRequest {
  return { dataset, nodeId, round: 0, step: 0, ...plan, ...change };
}

test('a batch is a pure function of its request', async () => {
  const first = await batchOf(request({ round: 3, step: 2 }));
  await batchOf(request({ round: 1, step: 4 }));
  assert.deepEqual(await batchOf(request({ round: 3, step: 2 })), first);
  assert.deepEqual(batchPlace(manifest, dataset.hash, { nodeId, round: 3, step: 2 }, plan), {
    shard: first.shard,
    offsets: first.offsets,
  });
});

test('tokens come from the named place, and labels follow them by one', async () => {
  const { shard, offsets, tokens, labels } = await batchOf(request({ round: 2 }));
  assert.equal(tokens.length, plan.batch * plan.sequence);
  assert.equal(offsets.length, plan.batch);
  const source = await dataset.shard(shard);
  for (const [row, offset] of offsets.entries()) {
    const from = row * plan.sequence;
    assert.deepEqual(
      [...tokens.subarray(from, from + plan.sequence)],
      [...source.subarray(offset, offset + plan.sequence)],
    );
    assert.deepEqual(
      [...labels.subarray(from, from + plan.sequence)],
      [...source.subarray(offset + 1, offset + plan.sequence + 1)],
    );
  }
});

test('every batch lies in a training shard, whatever the node and position', () => {
  fc.assert(
    fc.property(
      fc.string(),
      fc.nat(1_000_000),
      fc.nat(4),
      fc.integer({ min: 1, max: 40 }),
      fc.integer({ min: 1, max: 300 }),
      (id, round, step, batch, sequence) => {
        const place = batchPlace(
          manifest,
          dataset.hash,
          { nodeId: id, round, step },
          { batch, sequence, innerSteps: 5 },
        );
        assert.ok(training.includes(place.shard));
        assert.equal(place.offsets.length, batch);
        for (const offset of place.offsets) {
          assert.ok(offset >= 0 && offset + sequence < manifest.shards[place.shard]!.tokens);
        }
      },
    ),
  );
});

test('a visit of a shard repeats no window, then the next shard follows', () => {
  const seen = new Map<number, number[]>();
  const order: number[] = [];
  for (let number = 0; number < 60; number++) {
    const id = { nodeId, round: Math.floor(number / 5), step: number % 5 };
    const { shard, offsets } = batchPlace(manifest, dataset.hash, id, plan);
    if (order.at(-1) !== shard) order.push(shard);
    seen.set(shard, [...(seen.get(shard) ?? []), ...offsets]);
  }
  assert.ok(order.length >= 4);
  const start = training.indexOf(order[0]!);
  for (const [k, shard] of order.entries()) assert.equal(shard, training[(start + k) % training.length]);
  for (const offsets of seen.values()) {
    const sorted = offsets.toSorted((a, b) => a - b);
    for (let i = 1; i < sorted.length; i++) assert.ok(sorted[i]! - sorted[i - 1]! >= plan.sequence);
  }
});

test('shardFor is (H(node) + k) mod total', () => {
  fc.assert(
    fc.property(fc.string(), fc.nat(), fc.integer({ min: 1, max: 1000 }), (id, k, total) => {
      const assigned = shardFor(id, 0, total);
      assert.ok(assigned >= 0 && assigned < total);
      assert.equal(shardFor(id, k, total), (assigned + k) % total);
    }),
  );
  const starts = new Set(Array.from({ length: 1000 }, (_, i) => shardFor(`node ${i}`, 0, 50)));
  assert.equal(starts.size, 50, 'nodes spread over all shards');
});

test('node, round, step, index and dataset all choose other batches', async () => {
  const base = request({ microbatches: 2 });
  const changes: Partial<BatchRequest>[] = [{}, { nodeId: 'cd' }, { round: 1 }, { step: 1 }, { index: 1 }];
  const places = new Set<string>();
  for (const change of changes) {
    const { shard, offsets } = await batchOf({ ...base, ...change });
    places.add(`${shard}: ${offsets}`);
  }
  const elsewhere = batchPlace(manifest, 'other dataset', { nodeId, round: 0, step: 0 }, plan);
  places.add(`${elsewhere.shard}: ${elsewhere.offsets}`);
  assert.equal(places.size, changes.length + 1);
});

test('the batches of all nodes together are those of each', async () => {
  const nodeIds = ['a', 'b', 'c'];
  const all = await globalBatches({ dataset, nodeIds, round: 1, step: 2, ...plan, microbatches: 2 });
  assert.equal(all.length, 6);
  for (const [i, batch] of all.entries()) {
    const each = request({ nodeId: nodeIds[i >> 1]!, round: 1, step: 2, index: i % 2, microbatches: 2 });
    assert.deepEqual(batch, await batchOf(each));
  }
});

test('held-out batches are fixed, from held-out shards only, and spread over all of them', async () => {
  const options = { batch: 4, sequence: 16, count: 6 };
  const batches = await heldOutBatches(dataset, options);
  assert.deepEqual(await heldOutBatches(dataset, options), batches);
  assert.equal(batches.length, 6);
  assert.deepEqual(
    [...new Set(batches.map((batch) => batch.shard))],
    manifest.heldOut.filter((shard) => batches.some((batch) => batch.shard === shard)),
  );
  assert.equal(batches[0]!.shard, manifest.heldOut[0]);
  assert.equal(batches.at(-1)!.shard, manifest.heldOut.at(-1));
  const windows = new Set(batches.map((batch) => toHex(batchHash(batch.tokens, batch.labels))));
  assert.equal(windows.size, 6);
  const all = await heldOutBatches(dataset, { ...options, count: 500 });
  assert.equal(all.length, 500);
});

test('sequences longer than a shard are refused with one clear error', async () => {
  await assert.rejects(batchOf(request({ sequence: 5000 })), { code: 'shard-too-short' });
  await assert.rejects(heldOutBatches(dataset, { batch: 1, sequence: 5000, count: 1 }), {
    code: 'shard-too-short',
  });
});

test('the batch hash tells tokens from labels, and one length from another', () => {
  const a = Int32Array.of(1, 2, 3);
  const b = Int32Array.of(2, 3, 4);
  const hashes = [
    batchHash(a, b),
    batchHash(b, a),
    batchHash(a, a),
    batchHash(a.subarray(0, 2), b.subarray(0, 2)),
  ];
  assert.equal(new Set(hashes.map(toHex)).size, 4);
  assert.deepEqual(batchHash(a.slice(), b.slice()), hashes[0]);
});
