import assert from 'node:assert/strict';
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { buildDataset } from '../../genesis/build.ts';
import { readDocuments } from '../../genesis/readers/documents.ts';
import { batchHash, batchOf, heldOutBatches } from '../../genesis/sampler.ts';
import { loadTokenizer } from '../../genesis/tokenizer.ts';
import { toHex } from '../../std/bytes.ts';
import { buildDatasetFolder, loadDataset, readManifest, verifyDataset } from './dataset-files.ts';
import { packageFile } from './installation.ts';
import { installNodeSha256 } from './sha256.ts';
import { shippedDatasetFolder, shippedRecipe } from './shipped-dataset.ts';

installNodeSha256();

const shipped = packageFile('data', 'state-of-the-union');
const folder = await mkdtemp(join(tmpdir(), 'neuroshard-datasets-'));
after(() => rm(folder, { recursive: true }));

/** A small dataset for damaging: shards of two chunks. */
const text = Array.from({ length: 40_000 }, (_, i) => `${(i * 7919) % 10_007}`).join(' ');
const source = {
  origin: 'test.txt',
  licence: 'CC0-1.0',
  documents: () =>
    readDocuments({
      name: 'test.txt',
      stream: async function* () {
        yield Buffer.from(text);
      },
      byteLength: async () => text.length,
      read: async () => new Uint8Array(),
    }),
};
const options = { name: 'test', sources: [source], vocabularySize: 257, shardTokens: 40_000 };
const original = join(folder, 'original');
const { published } = await buildDatasetFolder(original, options);

async function damagedCopy(name: string, damage: (copy: string) => Promise<unknown>): Promise<string> {
  const copy = join(folder, name);
  await cp(original, copy, { recursive: true });
  await damage(copy);
  return copy;
}

async function flip(path: string, at: number): Promise<void> {
  const bytes = await readFile(path);
  bytes[at]! ^= 1;
  await writeFile(path, bytes);
}

test('rebuilding from the shipped corpus gives the shipped manifest hash', async () => {
  const rebuilt = await buildDataset(shippedRecipe(2048), async () => {});
  const { manifest, hash } = await readManifest(shipped);
  assert.deepEqual(rebuilt.published.manifest, manifest);
  assert.equal(rebuilt.published.hash, hash);
  assert.deepEqual(rebuilt.tokenizerJson, new Uint8Array(await readFile(join(shipped, 'tokenizer.json'))));
});

test('the shipped dataset verifies, has shards for ten nodes, and holds out about a sixteenth', async () => {
  const { problems, bytesVerified, published } = await verifyDataset(shipped);
  assert.deepEqual(problems, []);
  const { shards, heldOut, vocabularySize } = published.manifest;
  assert.equal(vocabularySize, 2048);
  assert.equal(
    bytesVerified,
    shards.reduce((sum, { bytes }) => sum + bytes, 0),
  );
  assert.ok(shards.length - heldOut.length >= 40);
  assert.deepEqual(heldOut, [8, 24, 40]);
});

test('batches of the shipped dataset are what they were when it was published', async () => {
  const dataset = await loadDataset(shipped, {
    expectedHash: '95f4caecb21879adce6328bcbe977fe3f2a59fdd21cb5b35b12b1a867a1406f4',
  });
  const batch = await batchOf({
    dataset,
    nodeId: '00'.repeat(32),
    round: 7,
    step: 3,
    batch: 8,
    sequence: 128,
    innerSteps: 20,
  });
  assert.equal(
    toHex(batchHash(batch.tokens, batch.labels)),
    '3296872b82d6a5c65edc090954339db2ab979177c715eb5161508b3c0688cfa2',
  );
  const [heldOut] = await heldOutBatches(dataset, { batch: 8, sequence: 128, count: 16 });
  assert.equal(
    toHex(batchHash(heldOut!.tokens, heldOut!.labels)),
    '3f93a78bf4bd20f28145e72f82ad193f0e0758208fdbde14e5eea03f3a8779a5',
  );
  const tokenizer = loadTokenizer(dataset.tokenizerJson);
  assert.match(tokenizer.decode(batch.tokens), /[a-z]+ [a-z]+ [a-z]+/);
});

test('another vocabulary is built once, on demand', async () => {
  const cache = join(folder, 'cache');
  let progress = 0;
  const built = await shippedDatasetFolder(512, cache, () => progress++);
  assert.equal((await readManifest(built)).manifest.vocabularySize, 512);
  assert.ok(progress > 0);
  assert.equal(await shippedDatasetFolder(512, cache, () => assert.fail('built again')), built);
  assert.equal(await shippedDatasetFolder(2048, cache), shipped);
});

test('a folder round trip: the loaded tokens are those that were built', async () => {
  const dataset = await loadDataset(original);
  assert.equal(dataset.hash, published.hash);
  const tokenizer = loadTokenizer(dataset.tokenizerJson);
  let tokens = 0;
  for (const { index } of dataset.manifest.shards) tokens += (await dataset.shard(index)).length;
  assert.equal(tokens, tokenizer.encode(text).length + 1);
});

test('a corrupt shard is one error naming file and chunk, and only that shard is unusable', async () => {
  const copy = await damagedCopy('corrupt', (at) => flip(join(at, 'shards', '00001.bin'), 70_000));
  const dataset = await loadDataset(copy);
  await assert.rejects(dataset.shard(1), {
    code: 'shard-corrupt',
    message: /00001\.bin: chunk 1 does not match/,
  });
  assert.ok((await dataset.shard(0)).length > 0);
  const { problems } = await verifyDataset(copy);
  assert.deepEqual(problems, [
    { file: 'shards/00001.bin', code: 'shard-corrupt', detail: 'chunk 1 does not match the manifest' },
  ]);
  await copyFile(join(original, 'shards', '00001.bin'), join(copy, 'shards', '00001.bin'));
  assert.ok((await dataset.shard(1)).length > 0, 'a mended file is used without a restart');
});

test('without true leaf hashes a corrupt shard is found all the same', async () => {
  for (const damage of [
    (copy: string) => rm(join(copy, 'leaves.bin')),
    (copy: string) => flip(join(copy, 'leaves.bin'), 40),
    (copy: string) => writeFile(join(copy, 'leaves.bin'), new Uint8Array(100_000)),
  ]) {
    const copy = await damagedCopy(`leaves-${Math.random()}`, async (at) => {
      await flip(join(at, 'shards', '00000.bin'), 1);
      await damage(at);
    });
    const dataset = await loadDataset(copy);
    await assert.rejects(dataset.shard(0), { code: 'shard-corrupt', message: /00000\.bin/ });
    assert.ok((await dataset.shard(1)).length > 0);
  }
});

test('short, long, missing and exchanged shards, and a wrong tokenizer', async () => {
  const copy = await damagedCopy('wrong', async (at) => {
    const shard = (index: number) => join(at, 'shards', `0000${index}.bin`);
    await writeFile(shard(0), (await readFile(shard(0))).subarray(2));
    await writeFile(shard(1), Buffer.concat([await readFile(shard(1)), Buffer.alloc(2)]));
    await rm(shard(2));
    await copyFile(join(original, 'shards', '00002.bin'), shard(3));
    await flip(join(at, 'tokenizer.json'), 100);
  });
  const { problems } = await verifyDataset(copy);
  assert.deepEqual(
    problems.map(({ file, code }) => `${file} ${code}`),
    [
      'tokenizer.json tokenizer-mismatch',
      'shards/00000.bin shard-corrupt',
      'shards/00001.bin shard-corrupt',
      'shards/00002.bin shard-missing',
      'shards/00003.bin shard-corrupt',
    ],
  );
  await assert.rejects(loadDataset(copy), { code: 'tokenizer-mismatch' });
});

test('a folder that holds no dataset, a damaged manifest, and another dataset than the wanted', async () => {
  await assert.rejects(loadDataset(join(folder, 'nowhere')), {
    code: 'not-found',
    message: /manifest\.cbor/,
  });
  const copy = await damagedCopy('manifest', (at) => flip(join(at, 'manifest.cbor'), 5));
  await assert.rejects(loadDataset(copy), { code: 'manifest-invalid' });
  await writeFile(join(copy, 'manifest.cbor'), 'not a manifest');
  await assert.rejects(verifyDataset(copy), { code: 'manifest-invalid' });
  await assert.rejects(loadDataset(original, { expectedHash: 'ab'.repeat(32) }), { code: 'wrong-dataset' });
});

test('an existing folder is refused; replaced only with force, and only if it is a dataset', async () => {
  const target = join(folder, 'target');
  await buildDatasetFolder(target, options);
  await assert.rejects(buildDatasetFolder(target, options), { code: 'already-exists' });
  const { published: replaced } = await buildDatasetFolder(
    target,
    { ...options, name: 'new' },
    { force: true },
  );
  assert.equal((await readManifest(target)).hash, replaced.hash);
  const precious = join(folder, 'precious');
  await mkdir(precious);
  await writeFile(join(precious, 'letter.txt'), 'dear');
  await assert.rejects(buildDatasetFolder(precious, options, { force: true }), { code: 'not-a-dataset' });
  assert.deepEqual(await readdir(precious), ['letter.txt']);
});

test('a build that fails leaves nothing behind, and the old dataset in place', async () => {
  const parent = join(folder, 'failing');
  const target = join(parent, 'dataset');
  await buildDatasetFolder(target, options);
  const failing = { ...source, documents: () => readDocuments({ ...broken, name: 'broken.jsonl' }) };
  await assert.rejects(
    buildDatasetFolder(target, { ...options, sources: [source, failing] }, { force: true }),
    {
      code: 'bad-line',
      message: /broken\.jsonl: line 1/,
    },
  );
  assert.deepEqual(await readdir(parent), ['dataset']);
  assert.deepEqual((await verifyDataset(target)).problems, []);
  await writeFile(join(folder, 'a-file'), '');
  await assert.rejects(buildDatasetFolder(join(folder, 'a-file', 'dataset'), options), {
    name: 'CodedError',
  });
});

const broken = {
  stream: async function* () {
    yield Buffer.from('{"text":\n');
  },
  byteLength: async () => 9,
  read: async () => new Uint8Array(),
};

test('the same files over HTTP; what the mirror changes is never used', async () => {
  let hostile = false;
  const server = createServer(async (request, response) => {
    try {
      const bytes = await readFile(join(original, request.url!));
      if (hostile && request.url!.includes('00001')) bytes[9]! ^= 1;
      response.writeHead(200).end(bytes);
    } catch {
      response.writeHead(404).end();
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const dataset = await loadDataset(`${url}/`, { expectedHash: published.hash });
    const local = await loadDataset(original);
    assert.deepEqual(await dataset.shard(0), await local.shard(0));
    hostile = true;
    await assert.rejects(dataset.shard(1), { code: 'shard-corrupt', message: /http:.*00001\.bin: chunk 0/ });
    assert.deepEqual(
      (await verifyDataset(url)).problems.map((problem) => problem.file),
      ['shards/00001.bin'],
    );
    await assert.rejects(loadDataset(`${url}/elsewhere`), { code: 'not-found' });
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
