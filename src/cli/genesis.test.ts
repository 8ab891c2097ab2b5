import assert from 'node:assert/strict';
import { appendFile, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { keyPairFrom } from '../identity/keys.ts';
import { packageFile } from '../platform/nodejs/installation.ts';
import { InterruptedError } from './errors.ts';
import { register } from './genesis.ts';
import { createProgram, runProgram } from './program.ts';

const folder = await mkdtemp(join(tmpdir(), 'neuroshard-genesis-'));
after(() => rm(folder, { recursive: true }));

async function execute(words: readonly string[], signal = new AbortController().signal) {
  let stdout = '';
  let stderr = '';
  const surroundings = {
    stdout: { write: (text: string) => (stdout += text) },
    stderr: { write: (text: string) => (stderr += text) },
    signal,
  };
  const program = createProgram('0.0.0', surroundings, [register]);
  const exitCode = await runProgram(program, ['genesis', ...words], surroundings);
  return { exitCode, stdout, stderr };
}

const text = Array.from(
  { length: 4000 },
  (_, i) => `line ${i} of the ${i % 7 ? 'first' : 'other'} book\n`,
).join('');
const book = join(folder, 'book.txt');
const posts = join(folder, 'posts.jsonl.gz');
await writeFile(book, text);
await writeFile(
  posts,
  gzipSync(
    text
      .split('\n')
      .map((line) => JSON.stringify({ body: line }))
      .join('\n'),
  ),
);

test('build, info and verify, for people and as JSON', async () => {
  const out = join(folder, 'book');
  const built = await execute([
    'build',
    book,
    '--name',
    'book',
    '--licence',
    'CC0-1.0',
    '--vocab',
    '300',
    '--out',
    out,
  ]);
  assert.equal(built.exitCode, 0, built.stderr);
  assert.match(built.stdout, /name {8}book\nsource {6}book\.txt \(CC0-1\.0\), 1 documents\n/);
  assert.match(built.stderr, /building .*100%/);
  const info = JSON.parse((await execute(['info', out, '--json'])).stdout);
  assert.equal(info.vocabularySize, 300);
  assert.equal(info.publisher, null);
  assert.ok(built.stdout.includes(info.hash));
  const verified = await execute(['verify', out, '--json']);
  assert.equal(verified.exitCode, 0);
  const report = JSON.parse(verified.stdout);
  assert.deepEqual([report.ok, report.hash, report.problems], [true, info.hash, []]);
  assert.match(
    (await execute(['verify', out])).stdout,
    /^ok: \d+ shards, .* proved\ndataset [0-9a-f]{64}\n$/,
  );
});

test('several sources with a key, another field and a given tokenizer', async () => {
  const key = join(folder, 'key.hex');
  await writeFile(key, `${'07'.repeat(32)}\n`);
  const out = join(folder, 'posts');
  const tokenizer = packageFile('data', 'state-of-the-union', 'tokenizer.json');
  const options = [
    '--field',
    'body',
    '--tokenizer',
    tokenizer,
    '--shard-tokens',
    '2000',
    '--held-out',
    '4',
    '--key',
    key,
  ];
  const built = await execute(['build', posts, book, '--name', 'posts', '--out', out, ...options, '--json']);
  assert.equal(built.exitCode, 0, built.stderr);
  const result = JSON.parse(built.stdout);
  assert.equal(result.publisher, keyPairFrom(new Uint8Array(32).fill(7)).nodeId);
  assert.equal(result.vocabularySize, 2048);
  assert.deepEqual(
    result.sources.map(({ origin }: { origin: string }) => origin),
    ['posts.jsonl.gz', 'book.txt'],
  );
  assert.ok(result.heldOutShards.length >= result.trainingShards / 4 - 1);
});

test('a corrupt dataset is shown file by file, with exit code 1', async () => {
  const out = join(folder, 'corrupt');
  assert.equal(
    (await execute(['build', book, '--name', 'book', '--vocab', '300', '--out', out])).exitCode,
    0,
  );
  await appendFile(join(out, 'shards', '00000.bin'), 'x');
  const people = await execute(['verify', out]);
  assert.equal(people.exitCode, 1);
  assert.match(people.stdout, /shards\/00000\.bin: .*longer than the manifest says\n1 file does not match/);
  const report = JSON.parse((await execute(['verify', out, '--json'])).stdout);
  assert.deepEqual([report.ok, report.problems[0].file], [false, 'shards/00000.bin']);
});

test('what goes wrong is one line and an exit code, and nothing is left behind', async () => {
  const out = join(folder, 'never');
  const build = (...words: string[]) => execute(['build', ...words, '--name', 'x', '--out', out]);
  const cases: readonly (readonly [number, RegExp, () => ReturnType<typeof execute>])[] = [
    [1, /no such file or folder/, () => build(join(folder, 'none.txt'))],
    [1, /not a \.txt, \.jsonl or \.parquet file/, () => build(packageFile('.gitignore'))],
    [1, /posts\.jsonl\.gz: line 1: no text in the field "text"/, () => build(posts)],
    [1, /holds no secp256k1 secret key/, () => build(book, '--key', packageFile('.gitignore'))],
    [1, /do not fill two shards/, () => build(book, '--shard-tokens', '1000000')],
    [1, /tokenizer\.json is not valid/, () => build(book, '--tokenizer', posts)],
    [2, /the vocabulary is at least 257/, () => build(book, '--vocab', '10')],
    [2, /unknown format 'pdf'/, () => build(book, '--format', 'pdf')],
    [2, /missing required argument/, () => execute(['build', '--name', 'x', '--out', out])],
    [1, /no such file or folder/, () => execute(['info', out])],
    [1, /is not a dataset manifest|a part of the path is not a folder/, () => execute(['verify', book])],
  ];
  for (const [exitCode, message, run] of cases) {
    const result = await run();
    assert.match(result.stderr, message);
    assert.equal(result.exitCode, exitCode, result.stderr);
    assert.doesNotMatch(result.stderr, /bug:/);
  }
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.includes('never')),
    [],
  );
});

test('an interrupted build leaves nothing behind', async () => {
  const stop = new AbortController();
  stop.abort(new InterruptedError('SIGINT', 130));
  const result = await execute(['build', book, '--name', 'x', '--out', join(folder, 'stopped')], stop.signal);
  assert.equal(result.exitCode, 130);
  assert.match(result.stderr, /stopped by SIGINT/);
  assert.deepEqual(
    (await readdir(folder)).filter((name) => name.includes('stopped')),
    [],
  );
});

test('an existing dataset is replaced only with --force', async () => {
  const out = join(folder, 'twice');
  const build = (...words: string[]) =>
    execute(['build', book, '--name', 'x', '--vocab', '300', '--out', out, ...words]);
  assert.equal((await build()).exitCode, 0);
  const refused = await build('--json');
  assert.equal(refused.exitCode, 1);
  assert.equal(JSON.parse(refused.stdout).error.code, 'already-exists');
  assert.equal((await build('--force')).exitCode, 0);
});
