/** The loss log: exact values, torn and damaged lines, growth, and a disk that is full. */
import assert from 'node:assert/strict';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { openLossLog, readLossLog } from './loss-log.ts';

const root = mkdtempSync(join(tmpdir(), 'neuroshard-losses-'));
after(() => rmSync(root, { recursive: true, force: true }));
const freshPath = () => join(mkdtempSync(join(root, 'case-')), 'losses.jsonl');
const entry = (step: number) => ({ round: 2, step, loss: 1 / step });

test('losses come back exactly, across openings, also those that are not numbers', async () => {
  const path = freshPath();
  const first = [entry(1), entry(2), { round: 2, step: 3, loss: Number.NaN }];
  for (const entries of [first, [entry(3)]]) {
    const log = await openLossLog(path);
    for (const each of entries) log.append(each);
    await log.close();
  }
  assert.deepEqual(await readLossLog(path), { entries: [...first, entry(3)], unreadable: 0 });
});

test('many entries appended at once keep their order', async () => {
  const path = freshPath();
  const log = await openLossLog(path);
  const entries = Array.from({ length: 5000 }, (_, index) => entry(index + 1));
  for (const each of entries) log.append(each);
  await log.flush();
  assert.deepEqual((await readLossLog(path)).entries, entries);
  await log.close();
});

test('cut anywhere, every whole line is read, and the next opening appends to a line of its own', async () => {
  const path = freshPath();
  const log = await openLossLog(path);
  for (let step = 1; step <= 4; step++) log.append(entry(step));
  await log.close();
  const whole = readFileSync(path);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length }), async (length) => {
      writeFileSync(path, whole);
      truncateSync(path, length);
      const lines = whole.subarray(0, length).filter((byte) => byte === 10).length;
      const torn = await readLossLog(path);
      assert.ok(torn.entries.length === lines || torn.entries.length === lines + 1);
      const again = await openLossLog(path);
      again.append(entry(9));
      await again.close();
      const expected = [1, 2, 3, 4].slice(0, lines).map(entry);
      assert.deepEqual(await readLossLog(path), { entries: [...expected, entry(9)], unreadable: 0 });
    }),
    { numRuns: 30 },
  );
});

test('a damaged line is counted and costs no other', async () => {
  const path = freshPath();
  const log = await openLossLog(path);
  log.append(entry(1));
  await log.flush();
  appendFileSync(path, Buffer.from([0xff, 0xc3, 0x0a]));
  appendFileSync(path, '{"round":-1,"step":1,"loss":2}\n');
  log.append(entry(2));
  await log.close();
  assert.deepEqual(await readLossLog(path), { entries: [entry(1), entry(2)], unreadable: 2 });
});

test('a log that has grown too large is set aside when it is opened', async () => {
  const path = freshPath();
  writeFileSync(path, `${'x'.repeat(100)}\n`);
  const log = await openLossLog(path, { bytesMax: 100 });
  log.append(entry(1));
  await log.close();
  assert.deepEqual((await readLossLog(path)).entries, [entry(1)]);
  assert.equal(readFileSync(`${path}.old`).length, 101);
});

test('what goes wrong is one coded error that names the file', async () => {
  const path = freshPath();
  await assert.rejects(readLossLog(path), { code: 'not-found' });
  await assert.rejects(openLossLog(join(path, 'log')), { code: 'not-found' });
});

test('a full disk loses lines, says so once, and the log goes on', {
  skip: process.platform !== 'linux',
}, async () => {
  const log = await openLossLog('/dev/full');
  log.append(entry(1));
  await assert.rejects(log.flush(), { code: 'disk-full' });
  await log.flush();
  await log.close();
});
