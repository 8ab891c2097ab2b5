/** A replica's whole state as flat copies, and back: what a checkpoint holds. Knows no files. */
import { flatLength, type Segment } from '../optim/segments.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { type Position, type ReplicaSnapshot, type SnapshotTensor, snapshotTensors } from './replica.ts';

export function snapshotSegments(
  segments: readonly Segment[],
  position: Position,
  contributed: boolean,
): ReplicaSnapshot {
  const tensors = {} as Record<SnapshotTensor, Float32Array>;
  for (const name of snapshotTensors) {
    const flat = new Float32Array(flatLength(segments));
    for (const { slabs, offset } of segments) flat.set(slabs[name], offset);
    tensors[name] = flat;
  }
  return { position, contributed, tensors };
}

/** `snapshot-mismatch` when a tensor is missing or of another length. */
export function checkSnapshot(segments: readonly Segment[], snapshot: ReplicaSnapshot): Outcome<void> {
  const expected = flatLength(segments);
  for (const name of snapshotTensors) {
    const length = snapshot.tensors[name]?.length;
    if (length !== expected)
      return reject('snapshot-mismatch', `${name}: ${length} elements, not ${expected}`);
  }
  return accept(undefined);
}

/** Copies a checked snapshot into place. */
export function restoreSegments(segments: readonly Segment[], snapshot: ReplicaSnapshot): void {
  for (const { slabs, offset, length } of segments) {
    for (const name of snapshotTensors)
      slabs[name].set(snapshot.tensors[name].subarray(offset, offset + length));
  }
}
