import assert from 'node:assert/strict';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { bytesOfTokens } from '../../genesis/shard.ts';
import { openDatasetCache } from './dataset-cache.ts';
import { loadDataset, verifyDataset } from './dataset-files.ts';
import { packageFile } from './installation.ts';

const shipped = await loadDataset(packageFile('data', 'state-of-the-union'));
const root = await mkdtemp(join(tmpdir(), 'neuroshard-cache-'));
after(() => rm(root, { recursive: true }));

const bytesOf = async (index: number) => bytesOfTokens(await shipped.shard(index));

test('what is kept is there for the next process, in the files of a dataset folder', async () => {
  const folder = join(root, 'kept');
  const cache = await openDatasetCache(folder);
  assert.equal(await cache.load(), undefined);
  await cache.save(shipped, shipped.tokenizerJson);
  for (const index of [0, 7]) await cache.write(index, await bytesOf(index));

  const again = await openDatasetCache(folder);
  const loaded = await again.load();
  assert.equal(loaded?.published.hash, shipped.hash);
  assert.deepEqual(loaded?.tokenizerJson, shipped.tokenizerJson);
  assert.deepEqual([again.holds(0), again.holds(1), again.holds(7)], [true, false, true]);
  assert.deepEqual(await again.read(7, 1 << 20), await bytesOf(7));
  assert.equal(await again.read(1, 1 << 20), undefined);

  const dataset = await loadDataset(folder, { expectedHash: shipped.hash });
  assert.deepEqual(bytesOfTokens(await dataset.shard(0)), await bytesOf(0));
  await assert.rejects(dataset.shard(1), { code: 'shard-missing' });
  const { problems } = await verifyDataset(folder);
  assert.deepEqual(new Set(problems.map(({ code }) => code)), new Set(['shard-missing']));
});

test('nothing is made before something is kept, and remains of an interrupted write are no shards', async () => {
  const folder = join(root, 'interrupted');
  await openDatasetCache(folder);
  await assert.rejects(readdir(folder), { code: 'ENOENT' });
  const cache = await openDatasetCache(folder);
  await cache.write(3, await bytesOf(3));
  await writeFile(join(folder, 'shards', '00004.bin.1.1.tmp'), 'half');
  await writeFile(join(folder, 'shards', '5.bin'), 'not our name');
  const again = await openDatasetCache(folder);
  assert.deepEqual([3, 4, 5].map(again.holds), [true, false, false]);
  assert.deepEqual((await readdir(join(folder, 'shards'))).sort(), ['00003.bin', '5.bin']);
});

test('a shard that is longer than it may be, or gone, is no longer held', async () => {
  const folder = join(root, 'damaged');
  const cache = await openDatasetCache(folder);
  await cache.write(1, await bytesOf(1));
  assert.equal(await cache.read(1, 100), undefined);
  assert.equal(cache.holds(1), false);
});
