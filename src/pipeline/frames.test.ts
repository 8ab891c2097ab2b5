import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createVirtualClock } from '../../sim/virtual-clock.ts';
import { frameMs, readFrame, sendFrames, writeFrame } from './frames.ts';

test('a frame comes at once and then every 50 ms, with the progress made', async () => {
  const clock = createVirtualClock();
  const sent: unknown[] = [];
  const frames = sendFrames({ clock, send: (bytes) => sent.push(readFrame(bytes)), queueDepth: () => 3 });
  assert.deepEqual(sent, [{ progress: 0, queueDepth: 3 }]);
  frames.moved();
  frames.moved();
  await clock.run(clock.nowMs() + 2 * frameMs);
  assert.deepEqual(sent.slice(1), [
    { progress: 2, queueDepth: 3 },
    { progress: 2, queueDepth: 3 },
  ]);
  frames.stop();
  await clock.run(clock.nowMs() + 10 * frameMs);
  assert.equal(sent.length, 3);
});

test('bytes of another length are no frame', () => {
  const bytes = writeFrame({ progress: 1, queueDepth: 2 });
  assert.equal(readFrame(bytes.subarray(1)), undefined);
  assert.deepEqual(readFrame(bytes), { progress: 1, queueDepth: 2 });
});
