/** When snapshots are taken and written, in virtual time, with files that a test holds back or lets fail. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ReplicaSnapshot, StageReplica } from '../diloco/replica.ts';
import { accept, CodedError, reject } from '../std/outcome.ts';
import { type CheckpointOptions, createCheckpointKeeper, type StoredSnapshot } from './checkpoint.ts';
import type { NodeEvent } from './events.ts';

const hourMs = 3_600_000;
const flatLength = 100;
const wholeBytes = 24 * flatLength;

function world(options: Partial<CheckpointOptions> = {}) {
  const state = {
    nowMs: 1_000_000,
    step: 0,
    /** Snapshots that are durable, oldest first. */
    stored: [] as StoredSnapshot[],
    copies: 0,
    restored: undefined as ReplicaSnapshot | undefined,
    /** Writes wait for this. */
    disk: Promise.resolve(),
    failure: undefined as Error | undefined,
    events: [] as NodeEvent[],
  };
  const snapshot = async () => {
    state.copies += 1;
    state.nowMs += 3;
    const position = { round: 1, step: state.step, optimizerSteps: state.step, stateHash: 'ab' };
    return { position, contributed: false, tensors: {} } as unknown as ReplicaSnapshot;
  };
  const replica = {
    info: async () => ({ flatLength }),
    snapshot,
    restore: async (from: ReplicaSnapshot) => {
      state.restored = from;
      return accept(from.position);
    },
  } as unknown as StageReplica;
  const keeper = () =>
    createCheckpointKeeper({
      replica,
      clock: { nowMs: () => state.nowMs, setTimer: () => () => undefined },
      events: (event) => void state.events.push(event),
      files: {
        write: async (stored) => {
          await state.disk;
          if (state.failure) throw state.failure;
          state.stored.push(stored);
          return wholeBytes;
        },
        load: async () => ({ snapshot: state.stored.at(-1), bytes: wholeBytes, damaged: [] }),
      },
      intervalMs: 1000,
      ...options,
    });
  return { state, replica, keeper };
}

function warnings(events: readonly NodeEvent[]): string[] {
  return events.flatMap((event) => (event.type === 'warning' ? [event.code] : []));
}

test('a snapshot is taken when it is due, and its event tells the pause', async () => {
  const { state, keeper } = world();
  const { maybeSnapshot, flush } = keeper();
  await maybeSnapshot();
  state.nowMs += 999;
  await maybeSnapshot();
  assert.equal(state.copies, 0);
  state.nowMs += 1;
  state.step = 7;
  await maybeSnapshot();
  await flush();
  assert.deepEqual(state.events, [{ type: 'checkpoint', round: 1, step: 7, bytes: wholeBytes, pauseMs: 3 }]);
  state.nowMs += 900;
  await maybeSnapshot();
  assert.equal(state.copies, 1);
});

test('training goes on while a snapshot is written, and there are never two writes', async () => {
  const { state, keeper } = world();
  const { maybeSnapshot, snapshotNow, flush } = keeper();
  let diskIsDone = () => {};
  state.disk = new Promise((resolve) => {
    diskIsDone = resolve;
  });
  state.nowMs += 1000;
  await maybeSnapshot();
  state.nowMs += 5000;
  await maybeSnapshot();
  assert.equal(state.copies, 1, 'the disk is behind: no further copy is held in memory');
  state.step = 2;
  const now = snapshotNow();
  await new Promise(setImmediate);
  assert.equal(state.copies, 1);
  diskIsDone();
  assert.equal(await now, true);
  await flush();
  assert.deepEqual(
    state.stored.map(({ replica }) => replica.position.step),
    [0, 2],
  );
});

test('a full disk is a warning each time, and the next interval tries again', async () => {
  const { state, keeper } = world();
  const { maybeSnapshot, snapshotNow, flush } = keeper();
  state.failure = new CodedError('disk-full', 'cannot write a: no space left on the disk');
  state.nowMs += 1000;
  await maybeSnapshot();
  await flush();
  assert.deepEqual(state.events, [
    {
      type: 'warning',
      code: 'disk-full',
      detail: 'no snapshot: cannot write a: no space left on the disk',
    },
  ]);
  await maybeSnapshot();
  assert.equal(state.copies, 1);
  assert.equal(await snapshotNow(), false);
  state.failure = undefined;
  state.nowMs += 1000;
  await maybeSnapshot();
  await flush();
  assert.equal(state.stored.length, 1);
});

test('snapshots come slower when the daily bytes would not last the day', async () => {
  const { state, keeper } = world({ bytesPerDayMax: 24 * wholeBytes });
  const { maybeSnapshot, flush } = keeper();
  for (let minute = 0; minute < 24 * 60; minute++) {
    await maybeSnapshot();
    await flush();
    state.nowMs += 60_000;
  }
  assert.ok(state.stored.length >= 23 && state.stored.length <= 24, `${state.stored.length} snapshots`);
  assert.deepEqual(warnings(state.events), []);
});

test('when the daily bytes are spent snapshots are skipped, with one warning a day', async () => {
  const { state, keeper } = world({ bytesPerDayMax: 2.5 * wholeBytes });
  const { maybeSnapshot, snapshotNow, flush } = keeper();
  for (let time = 0; time < 2; time++) await snapshotNow();
  for (let hour = 0; hour < 12; hour++) {
    state.nowMs += hourMs;
    await maybeSnapshot();
    await flush();
  }
  assert.equal(state.stored.length, 2);
  assert.deepEqual(warnings(state.events), ['checkpoint-cap']);
  assert.equal(await snapshotNow(), true, 'one that is asked for is written all the same');
  state.nowMs += 13 * hourMs;
  await maybeSnapshot();
  await flush();
  assert.equal(state.stored.length, 4, 'a new day begins');
});

test('what was written today is remembered across a restart', async () => {
  const { state, keeper } = world({ bytesPerDayMax: 2.5 * wholeBytes });
  for (let restart = 0; restart < 4; restart++) {
    const { restore, maybeSnapshot, flush } = keeper();
    await restore();
    state.nowMs += hourMs * 3;
    await maybeSnapshot();
    state.nowMs += 1;
    await maybeSnapshot();
    await flush();
  }
  assert.ok(state.stored.length <= 2, `${state.stored.length} snapshots`);
});

test('restoring puts the replica where the snapshot stands', async () => {
  const { state, keeper } = world();
  assert.equal(await keeper().restore(), undefined);
  state.step = 5;
  await keeper().snapshotNow();
  assert.deepEqual(await keeper().restore(), { round: 1, step: 5, damaged: [] });
  assert.equal(state.restored, state.stored[0]!.replica);
});

test('damaged files are warnings, and come with the position', async () => {
  const { state, keeper } = world();
  await keeper().snapshotNow();
  const damaged = [{ file: 'local-2', reason: 'its hash differs' }];
  const files = {
    write: async () => 0,
    load: async () => ({ snapshot: state.stored[0], bytes: wholeBytes, damaged }),
  };
  state.events.length = 0;
  const other = createCheckpointKeeper({ ...optionsOf(state, world().replica), files });
  assert.deepEqual(await other.restore(), { round: 1, step: 0, damaged: ['local-2: its hash differs'] });
  assert.deepEqual(warnings(state.events), ['snapshot-damaged']);
});

test('a snapshot of another model is refused with one clear line, and stays', async () => {
  const { state, replica, keeper } = world();
  await keeper().snapshotNow();
  const other = {
    ...replica,
    restore: async () => reject('snapshot-mismatch', 'weights: 5 elements, not 6'),
  };
  const files = {
    write: async () => 0,
    load: async () => ({ snapshot: state.stored[0], bytes: wholeBytes, damaged: [] }),
  };
  const refused = createCheckpointKeeper({ ...optionsOf(state, other), files }).restore();
  await assert.rejects(refused, { code: 'snapshot-mismatch', message: /another model.*5 elements/ });
  assert.equal(state.stored.length, 1);
});

test('a replica that is gone fails the step, not the keeper', async () => {
  const { state, replica } = world();
  const gone = {
    ...replica,
    snapshot: () => Promise.reject(new CodedError('compute-stopped', 'the compute worker has stopped')),
  };
  const files = { write: async () => 0, load: async () => ({ snapshot: undefined, bytes: 0, damaged: [] }) };
  const { maybeSnapshot, flush } = createCheckpointKeeper({ ...optionsOf(state, gone), files });
  state.nowMs += 200_000;
  await assert.rejects(maybeSnapshot(), { code: 'compute-stopped' });
  await flush();
});

function optionsOf(state: ReturnType<typeof world>['state'], replica: StageReplica) {
  return {
    replica,
    clock: { nowMs: () => state.nowMs, setTimer: () => () => undefined },
    events: (event: NodeEvent) => void state.events.push(event),
  };
}
