/** A real replica of a very small model in a thread and in a process: it trains, goes on after a restart, and stops. */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { checkTensors, pipelineStep } from '../../../test/stage-parity.ts';
import type { ReplicaSettings } from '../../diloco/local-replica.ts';
import type { StageReplica } from '../../diloco/replica.ts';
import { createCheckpointKeeper } from '../../peer/checkpoint.ts';
import { systemClock } from './clock.ts';
import { type ComputeOptions, startCompute } from './compute-host.ts';
import { openSnapshotFiles } from './snapshot-files.ts';

const settings: ReplicaSettings = {
  config: {
    layers: 1,
    width: 32,
    heads: 2,
    kvHeads: 1,
    headWidth: 16,
    ffn: 48,
    vocabulary: 64,
    context: 16,
    ropeTheta: 10_000,
    normEpsilon: 1e-5,
    tiedEmbeddings: false,
  },
  seed: new Uint8Array(32).fill(3),
  plan: new Uint8Array(32).fill(4),
  inner: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
  batch: 2,
  sequence: 16,
  outer: { compression: 'int8', aggregator: 'default', learningRate: 0.7, momentum: 0.9 },
};
const native: ComputeOptions = { engine: 'native', threads: 1, replica: settings };
const wasm: ComputeOptions = { engine: 'wasm', threads: 1, replica: settings };

function batchOf(step: number) {
  const tokens = Int32Array.from({ length: 32 }, (_, index) => (index * 7 + step) % 64);
  return { tokens, labels: tokens.map((token) => (token * 3 + 1) % 64) };
}

async function trainSteps(replica: StageReplica, from: number, to: number): Promise<number[]> {
  const losses: number[] = [];
  for (let step = from; step < to; step++) losses.push((await replica.trainStep([batchOf(step)], 5e-3)).loss);
  return losses;
}

if (process.argv[2] === 'be-the-parent') await beTheParent();
else tests();

function tests(): void {
  const root = mkdtempSync(join(tmpdir(), 'neuroshard-compute-'));
  after(() => rmSync(root, { recursive: true, force: true }));

  for (const options of [native, wasm]) {
    test(`${options.engine}: learns, contributes and closes a round`, async () => {
      const { replica, stop } = await startCompute(options);
      try {
        const info = await replica.info();
        assert.equal(info.engineId, options.engine === 'wasm' ? 'wasm' : 'native-cpu');
        const losses = await trainSteps(replica, 0, 12);
        assert.ok(losses.at(-1)! < losses[0]! - 0.1, `${losses}`);
        const { blob, blobHash } = await replica.contribute();
        assert.equal(blob.length, info.blobBytes);
        assert.deepEqual(await replica.contribute(), { blob, blobHash });
        assert.ok((await replica.screen(blob, blobHash)).ok);
        const before = await replica.evaluate([batchOf(1)]);
        const closed = await replica.closeRound({
          round: 0,
          ownNodeId: 'me',
          contributions: [{ nodeId: 'me', batches: 12, blob }],
        });
        assert.ok(closed.ok);
        assert.deepEqual(
          { ...closed.value.position, stateHash: '' },
          {
            round: 1,
            step: 0,
            optimizerSteps: 12,
            stateHash: '',
          },
        );
        assert.ok((await replica.evaluate([batchOf(1)])) < before);
      } finally {
        await stop();
      }
      await assert.rejects(replica.position(), { code: 'compute-stopped' });
    });

    test(`${options.engine}: two stages in two places make the step of the whole model`, async () => {
      const config = { ...settings.config, layers: 2 };
      const start = (stages: number, stageIndex: number) =>
        startCompute({ ...options, replica: { ...settings, config, stages, stageIndex } });
      const places = await Promise.all([start(1, 0), start(2, 0), start(2, 1)]);
      try {
        const [whole, ...stages] = places.map(({ replica }) => replica);
        const batches = [batchOf(1), batchOf(2)];
        const expected = await whole!.trainStep(batches, 1e-3);
        assert.deepEqual(await pipelineStep(stages, batches, 1e-3, settings.inner.clip), expected);
        const parts = await Promise.all(stages.map((stage) => stage.exportWeights('weights')));
        checkTensors(Object.assign({}, ...parts), await whole!.exportWeights('weights'));
      } finally {
        await Promise.all(places.map((place) => place.stop()));
      }
    });

    test(`${options.engine}: after a restart the steps made again give the same losses`, async () => {
      const folder = join(root, options.engine);
      const keeperOf = async (replica: StageReplica) =>
        createCheckpointKeeper({
          files: await openSnapshotFiles(folder),
          replica,
          clock: systemClock(),
          events: () => undefined,
        });
      const first = await startCompute(options);
      let expected: number[];
      try {
        await trainSteps(first.replica, 0, 3);
        assert.equal(await (await keeperOf(first.replica)).snapshotNow(), true);
        expected = await trainSteps(first.replica, 3, 8);
      } finally {
        await first.stop();
      }
      const second = await startCompute(options);
      try {
        const restored = await (await keeperOf(second.replica)).restore();
        assert.deepEqual(restored, { round: 0, step: 3, damaged: [] });
        assert.deepEqual(await trainSteps(second.replica, 3, 8), expected);
      } finally {
        await second.stop();
      }
    });

    test(`${options.engine}: stopping lets calls finish that were made before`, async () => {
      const { replica, stop, failed } = await startCompute(options);
      let failure: Error | undefined;
      failed.then((error) => {
        failure = error;
      });
      const steps = [0, 1, 2].map((step) => replica.trainStep([batchOf(step)], 1e-3));
      await Promise.all([stop(), stop()]);
      assert.equal((await Promise.all(steps)).length, 3);
      await new Promise(setImmediate);
      assert.equal(failure, undefined, 'an end that was asked for is no failure');
    });
  }

  test('what keeps a replica from being made is the error, in one line', async () => {
    const missing = startCompute({ ...native, provider: 'nonesuch' as 'cpu' });
    await assert.rejects(missing, { code: 'provider-unavailable', message: /nonesuch/ });
    const config = { ...settings.config, layers: -1 };
    for (const options of [native, wasm])
      await assert.rejects(startCompute({ ...options, replica: { ...settings, config } }), Error);
  });

  test('a compute process that dies is a failure, and calls reject', async () => {
    const { replica, stop, failed, pid } = await startCompute(wasm);
    const waiting = trainSteps(replica, 0, 1000);
    process.kill(pid, 'SIGKILL');
    await assert.rejects(waiting, { code: 'compute-stopped' });
    assert.match((await failed).message, /SIGKILL/);
    await stop();
  });

  test('a compute process ends when its parent is killed, whatever it was doing', async () => {
    const parent = fork(fileURLToPath(import.meta.url), ['be-the-parent'], { execArgv: [] });
    const pid = await new Promise<number>((resolve) =>
      parent.once('message', (sent) => resolve(Number(sent))),
    );
    assert.ok(isAlive(pid));
    parent.kill('SIGKILL');
    while (isAlive(pid)) await sleep(20);
  });
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

async function beTheParent(): Promise<void> {
  const { replica, pid } = await startCompute(wasm);
  process.send!(pid);
  await trainSteps(replica, 0, 1_000_000);
}
