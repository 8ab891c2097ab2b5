/** Snapshots on a real folder: round trips, every kind of damage, a full disk, and death in the middle of writing. */
import assert from 'node:assert/strict';
import { type ChildProcess, fork } from 'node:child_process';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { snapshotTensors } from '../../diloco/replica.ts';
import { readSafetensors } from '../../model/safetensors.ts';
import type { StoredSnapshot } from '../../peer/checkpoint.ts';
import { seededRandom, uniformBelow } from '../../std/random.ts';
import { openSnapshotFiles } from './snapshot-files.ts';
import { encodeIndex, parseIndex } from './snapshot-index.ts';

const flat = 5000;
const stateHash = (round: number) => round.toString(16).padStart(64, '0');

/** Every element tells which snapshot and which tensor it belongs to. */
function snapshotAt(round: number, step: number, elements = flat): StoredSnapshot {
  const value = (index: number) => (index < 4 ? step : round) + index / 8;
  const tensors = Object.fromEntries(
    snapshotTensors.map((name, index) => [name, new Float32Array(elements).fill(value(index))]),
  ) as StoredSnapshot['replica']['tensors'];
  const position = { round, step, optimizerSteps: 100 * round + step, stateHash: stateHash(round) };
  return { replica: { position, contributed: step % 2 === 1, tensors }, writes: { startMs: 7, bytes: step } };
}

async function assertLoads(folder: string, round: number, step: number) {
  const loaded = await (await openSnapshotFiles(folder)).load();
  assert.deepEqual(loaded.snapshot, snapshotAt(round, step));
  return loaded;
}

if (process.argv[2] === 'write-forever') await writeForever(process.argv[3]!);
else tests();

/** Tells the parent of each snapshot that has become durable. Steps go up by one; a round has five. */
async function writeForever(folder: string): Promise<void> {
  process.on('disconnect', () => process.exit());
  const files = await openSnapshotFiles(folder);
  const { snapshot } = await files.load();
  for (let step = (snapshot?.replica.position.step ?? 0) + 1; ; step++) {
    await files.write(snapshotAt(Math.floor(step / 5), step));
    process.send!(step);
  }
}

function tests(): void {
  const root = mkdtempSync(join(tmpdir(), 'neuroshard-snapshots-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const freshFolder = () => mkdtempSync(join(root, 'case-'));
  /** Two snapshots of one round: steps 1 and 2 of round 0. */
  const filled = async () => {
    const folder = freshFolder();
    const files = await openSnapshotFiles(folder);
    await files.write(snapshotAt(0, 1));
    await files.write(snapshotAt(0, 2));
    return folder;
  };

  test('an empty or missing folder holds no snapshot', async () => {
    const files = await openSnapshotFiles(join(freshFolder(), 'not', 'yet'));
    assert.deepEqual(await files.load(), { snapshot: undefined, bytes: 0, damaged: [] });
  });

  test('the newest is loaded as it was written, by this process and by the next', async () => {
    const folder = freshFolder();
    const files = await openSnapshotFiles(folder);
    const bytes = await files.write(snapshotAt(3, 4));
    assert.deepEqual((await files.load()).snapshot, snapshotAt(3, 4));
    const loaded = await assertLoads(folder, 3, 4);
    assert.deepEqual(loaded.damaged, []);
    assert.equal(loaded.bytes, bytes);
    const onDisk = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
    assert.equal(
      bytes,
      onDisk.reduce((sum, name) => sum + statSync(join(folder, name)).size, 0),
    );
  });

  test('other programs can read the files', async () => {
    const folder = await filled();
    const names = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
    assert.equal(names.length, 4);
    for (const name of names) {
      const parsed = readSafetensors(new Uint8Array(readFileSync(join(folder, name))));
      assert.ok(parsed.ok);
      assert.equal(parsed.value.metadata.get('state-hash'), stateHash(0));
    }
  });

  test('two are kept, whole, whatever came before', async () => {
    const folder = freshFolder();
    const files = await openSnapshotFiles(folder);
    for (let step = 1; step <= 9; step++) await files.write(snapshotAt(Math.floor(step / 4), step));
    assert.equal(readdirSync(folder).length, 6);
    const { snapshot } = await assertLoads(folder, 2, 9);
    assert.ok(snapshot);
    unlinkSync(join(folder, 'snapshot-000000000009.json'));
    await assertLoads(folder, 2, 8);
  });

  test('the agreed state is written at most twice a round, and no two snapshots share a file', async () => {
    const folder = freshFolder();
    const files = await openSnapshotFiles(folder);
    const written: number[] = [];
    for (let step = 1; step <= 6; step++) written.push(await files.write(snapshotAt(1, step)));
    const [first, second, ...rest] = written;
    assert.equal(first, second);
    for (const bytes of rest) assert.ok(bytes < first! * 0.7, `${bytes} of ${first}`);
    assert.equal(readdirSync(folder).filter((name) => name.startsWith('round-')).length, 2);
    assert.equal(await files.write(snapshotAt(2, 1)), first, 'a new round is written whole');
    await assertLoads(folder, 2, 1);
  });

  test('a state of the same round with another hash is not taken for it', async () => {
    const folder = freshFolder();
    const files = await openSnapshotFiles(folder);
    for (let step = 1; step <= 2; step++) await files.write(snapshotAt(1, step));
    const resynchronised = snapshotAt(1, 3);
    const position = { ...resynchronised.replica.position, stateHash: 'f'.repeat(64) };
    resynchronised.replica.tensors.base.fill(-1);
    await files.write({ ...resynchronised, replica: { ...resynchronised.replica, position } });
    const { snapshot } = await (await openSnapshotFiles(folder)).load();
    assert.equal(snapshot?.replica.tensors.base[0], -1);
  });

  describe('damage to any file of the newest is reported and the previous one used', () => {
    const random = seededRandom(new Uint8Array(16).fill(5));
    const damages: Record<string, (path: string) => void> = {
      'a flipped bit': (path) => {
        const bytes = readFileSync(path);
        const at = uniformBelow(random, bytes.length);
        bytes[at]! ^= 1 << uniformBelow(random, 8);
        writeFileSync(path, bytes);
      },
      'a flipped bit in the first bytes': (path) => {
        const bytes = readFileSync(path);
        bytes[uniformBelow(random, 16)]! ^= 1;
        writeFileSync(path, bytes);
      },
      truncation: (path) => truncateSync(path, Math.floor(statSync(path).size / 2)),
      'an empty file': (path) => truncateSync(path, 0),
      'more bytes than there were': (path) => writeFileSync(path, 'x', { flag: 'a' }),
      'a missing file': (path) => unlinkSync(path),
      garbage: (path) => writeFileSync(path, new Uint8Array(statSync(path).size).fill(0xa5)),
    };
    for (const [name, damage] of Object.entries(damages)) {
      for (const part of ['snapshot', 'local', 'round']) {
        test(`${name} of the ${part} file`, async () => {
          const folder = await filled();
          const file = readdirSync(folder).find((each) => each.startsWith(`${part}-000000000002`))!;
          damage(join(folder, file));
          const { damaged } = await assertLoads(folder, 0, 1);
          // An index that is not there names nothing: there is nothing to report.
          const expected = name === 'a missing file' && part === 'snapshot' ? [] : [file];
          assert.deepEqual(
            damaged.map((each) => each.file),
            expected,
          );
          for (const { reason } of damaged) assert.match(reason, /^[^\n]+$/);
          // The node goes on: the damaged one is replaced, never counted as one of the two.
          const files = await openSnapshotFiles(folder);
          await files.load();
          await files.write(snapshotAt(0, 3));
          await assertLoads(folder, 0, 3);
          unlinkSync(join(folder, readdirSync(folder).filter((each) => each.endsWith('.json'))[1]!));
          await assertLoads(folder, 0, 1);
        });
      }
    }
  });

  test('an index that leads out of the folder is refused, though its hash is right', async () => {
    const folder = await filled();
    const name = 'snapshot-000000000002.json';
    const index = parseIndex(name, readFileSync(join(folder, name)));
    const local = { ...index.local, name: '../local-000000000002.safetensors' };
    writeFileSync(join(folder, name), encodeIndex({ ...index, local }));
    const { damaged } = await assertLoads(folder, 0, 1);
    assert.deepEqual(
      damaged.map((each) => each.file),
      [name],
    );
  });

  test('with everything damaged there is no snapshot, and each file is named', async () => {
    const folder = await filled();
    for (const file of readdirSync(folder)) writeFileSync(join(folder, file), 'x');
    const { snapshot, damaged } = await (await openSnapshotFiles(folder)).load();
    assert.equal(snapshot, undefined);
    assert.equal(damaged.length, 2);
  });

  test('what a crash left half-written is cleared', async () => {
    const folder = await filled();
    writeFileSync(join(folder, 'local-000000000003.safetensors.123.1.tmp'), 'half');
    writeFileSync(join(folder, 'round-000000000003.safetensors'), 'whole, but its index never came');
    const files = await openSnapshotFiles(folder);
    assert.ok(readdirSync(folder).every((name) => !name.endsWith('.tmp')));
    assert.deepEqual((await files.load()).snapshot, snapshotAt(0, 2));
    await files.write(snapshotAt(0, 3));
    assert.equal(readdirSync(folder).length, 6);
  });

  test('a full disk at any moment is one coded error, and the old snapshots stay', async () => {
    let refused = 0;
    for (let room = 0; refused < room / 20_000 + 1; room += 20_000) {
      const folder = await filled();
      const before = readdirSync(folder).sort();
      const files = await openSnapshotFiles(folder, { openFile: fullDisk(room) });
      await files.load();
      const failed = await files.write(snapshotAt(1, 3)).then(
        () => undefined,
        (error: { code: string }) => error,
      );
      if (!failed) break;
      refused += 1;
      assert.equal(failed.code, 'disk-full');
      assert.deepEqual(readdirSync(folder).sort(), before);
      await assertLoads(folder, 0, 2);
    }
    assert.ok(refused > 5, 'the disk was full at several moments');
  });

  test('a process killed at any moment leaves the last durable snapshot, or the one it was writing', async () => {
    const random = seededRandom(new Uint8Array(16).fill(9));
    const folder = freshFolder();
    let durable = 0;
    for (let kill = 0; kill < 20; kill++) {
      durable = Math.max(durable, await killWhileWriting(folder, random));
      const { snapshot, damaged } = await (await openSnapshotFiles(folder)).load();
      assert.ok(snapshot, 'there is a snapshot');
      assert.deepEqual(damaged, []);
      const { step, round } = snapshot.replica.position;
      assert.ok(step === durable || step === durable + 1, `step ${step}, durable ${durable}`);
      assert.deepEqual(snapshot, snapshotAt(round, step));
      durable = step;
    }
  });
}

/** Kills the writer some time after its first message; gives the last step it reported as durable. */
function killWhileWriting(folder: string, random: ReturnType<typeof seededRandom>): Promise<number> {
  const child: ChildProcess = fork(fileURLToPath(import.meta.url), ['write-forever', folder], {
    execArgv: [],
  });
  let durable = 0;
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('message', () => setTimeout(() => child.kill('SIGKILL'), uniformBelow(random, 40)));
    child.on('message', (step) => {
      durable = step as number;
    });
    child.once('close', () => resolve(durable));
  });
}

/** Opens real files whose disk has room for `room` more bytes, then fails as the system does. */
function fullDisk(room: number): typeof open {
  return async (...parameters) => {
    const file = await open(...parameters);
    const limited = {
      write: async (piece: Uint8Array, offset: number, length: number) => {
        if (room === 0) throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC' });
        const result = await file.write(piece, offset, Math.min(length, room));
        room -= result.bytesWritten;
        return result;
      },
      sync: () => file.sync(),
      close: () => file.close(),
    };
    return limited as unknown as FileHandle;
  };
}
