/**
 * A process that trains with snapshots and a loss log is killed at random moments and started again: what it does a
 * second time must be what it had logged the first time, loss for loss and contribution for contribution.
 */
import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ReplicaSettings } from '../../diloco/local-replica.ts';
import type { StageReplica } from '../../diloco/replica.ts';
import { createCheckpointKeeper } from '../../peer/checkpoint.ts';
import { seededRandom, uniformBelow } from '../../std/random.ts';
import { systemClock } from './clock.ts';
import { startCompute } from './compute-host.ts';
import { openLossLog, readLossLog } from './loss-log.ts';
import { openSnapshotFiles } from './snapshot-files.ts';

const innerSteps = 12;
const batchLength = 32;

const settings: ReplicaSettings = {
  config: {
    layers: 1,
    width: 64,
    heads: 2,
    kvHeads: 1,
    headWidth: 32,
    ffn: 96,
    vocabulary: 256,
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
  outer: { compression: 'sparse', aggregator: 'default', learningRate: 1, momentum: 0 },
};

type Message = { readonly round: number; readonly step: number } | { readonly blob: [number, string] };

function batchOf(round: number, step: number) {
  const random = seededRandom(new Uint8Array(16).fill(17 * round + step));
  const draw = () => Int32Array.from({ length: batchLength }, () => uniformBelow(random, 256));
  return { tokens: draw(), labels: draw() };
}

async function closeRound(replica: StageReplica, round: number): Promise<void> {
  const { blob, blobHash } = await replica.contribute();
  process.send!({ blob: [round, blobHash] } satisfies Message);
  const contributions = [{ nodeId: 'me', batches: innerSteps, blob }];
  const closed = await replica.closeRound({ round, ownNodeId: 'me', contributions });
  assert.ok(closed.ok);
}

/** Trains until it is killed; the parent hears of every step and contribution. */
async function trainForever(folder: string): Promise<void> {
  process.on('disconnect', () => process.exit());
  const { replica } = await startCompute({ engine: 'native', threads: 1, replica: settings });
  const files = await openSnapshotFiles(join(folder, 'snapshots'));
  const clock = systemClock();
  const keeper = createCheckpointKeeper({ files, replica, clock, events: () => undefined, intervalMs: 30 });
  await keeper.restore();
  const log = await openLossLog(join(folder, 'losses.jsonl'));
  for (;;) {
    const { round, step } = await replica.position();
    if (step < innerSteps) {
      const { loss } = await replica.trainStep([batchOf(round, step)], 5e-3);
      log.append({ round, step: step + 1, loss });
      process.send!({ round, step } satisfies Message);
    } else await closeRound(replica, round);
    await keeper.maybeSnapshot();
  }
}

function replayTest(): void {
  const folder = mkdtempSync(join(tmpdir(), 'neuroshard-replay-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  test('steps and contributions made again after kill -9 are those made before', async () => {
    const random = seededRandom(new Uint8Array(16).fill(1));
    const blobs = new Map<number, string>();
    for (let kill = 0; kill < 5; kill++) {
      const child = fork(fileURLToPath(import.meta.url), ['train-forever', folder], { execArgv: [] });
      let stepsLeft = 10 + uniformBelow(random, 25);
      await new Promise<void>((resolve) => {
        child.once('close', () => resolve());
        child.on('message', (message: Message) => {
          if ('blob' in message) {
            const [round, hash] = message.blob;
            assert.equal(blobs.get(round) ?? hash, hash, `another contribution for round ${round}`);
            blobs.set(round, hash);
          } else if (--stepsLeft === 0) child.kill('SIGKILL');
        });
      });
      assert.ok(stepsLeft <= 0, 'it ended before it was killed');
    }
    const { entries } = await readLossLog(join(folder, 'losses.jsonl'));
    const first = new Map<string, number>();
    let replayed = 0;
    for (const { round, step, loss } of entries) {
      const before = first.get(`${round}/${step}`);
      if (before === undefined) first.set(`${round}/${step}`, loss);
      else {
        replayed += 1;
        assert.equal(loss, before, `round ${round}, step ${step}`);
      }
    }
    assert.ok(replayed > 0, 'some steps were made twice');
    assert.ok(blobs.size > 1, 'training went on across the kills');
  });
}

if (process.argv[2] === 'train-forever') await trainForever(process.argv[3]!);
else replayTest();
