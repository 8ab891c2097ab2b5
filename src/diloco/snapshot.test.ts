import assert from 'node:assert/strict';
import { test } from 'node:test';
import { tinyConfig } from '../../test/tiny-replica.ts';
import { wholeModel } from '../model/parameters.ts';
import { createSegments, flatLength } from '../optim/segments.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { type ReplicaSnapshot, snapshotTensors } from './replica.ts';
import { checkSnapshot, restoreSegments, snapshotSegments } from './snapshot.ts';

const position = { round: 3, step: 2, optimizerSteps: 11, stateHash: 'f'.repeat(64) };

function filled(fill: (name: number, index: number) => number) {
  const stage = wholeModel(tinyConfig);
  const options = { config: tinyConfig, stage, createMemory: createKernelMemory, embeddingScratchBytes: 0 };
  const segments = createSegments(options);
  for (const { slabs, offset, length } of segments)
    for (const [n, name] of snapshotTensors.entries())
      for (let i = 0; i < length; i++) slabs[name][i] = fill(n, offset + i);
  return segments;
}

test('a snapshot holds copies of all that a node must keep, and puts them back', () => {
  const segments = filled((name, index) => 1e5 * name + index);
  const snapshot = snapshotSegments(segments, position, true);
  assert.deepEqual(Object.keys(snapshot.tensors).sort(), [...snapshotTensors].sort());
  for (const [name, tensor] of snapshotTensors.entries())
    assert.ok(snapshot.tensors[tensor].every((value, index) => value === 1e5 * name + index));
  segments[0]!.slabs.weights[0] = -1;
  assert.equal(snapshot.tensors.weights[0], 0, 'a copy');
  const other = filled(() => 0);
  assert.ok(checkSnapshot(other, snapshot).ok);
  restoreSegments(other, snapshot);
  assert.deepEqual(snapshotSegments(other, position, true), snapshot);
});

test('a tensor that is missing or of another length is found before anything is copied', () => {
  const segments = filled(() => 1);
  const whole = snapshotSegments(segments, position, false);
  for (const name of snapshotTensors) {
    const { [name]: _, ...without } = whole.tensors;
    for (const tensors of [without, { ...without, [name]: new Float32Array(flatLength(segments) - 1) }]) {
      const checked = checkSnapshot(segments, { ...whole, tensors } as unknown as ReplicaSnapshot);
      assert.ok(!checked.ok && checked.code === 'snapshot-mismatch');
      assert.match(checked.detail, new RegExp(`^${name}: `));
    }
  }
});
