/** `genesis build`, `genesis verify` and `genesis info`: datasets made, proved and shown. */
import type { Command } from 'commander';
import { buildDefaults } from '../genesis/build.ts';
import { type PublishedManifest, trainingShards } from '../genesis/manifest.ts';
import { type Format, formats } from '../genesis/readers/documents.ts';
import { tokenizerBytesMax } from '../genesis/tokenizer.ts';
import { keyPairFrom, nodeIdOf, secretKeyBytes } from '../identity/keys.ts';
import { byteSource } from '../platform/nodejs/byte-sources.ts';
import { corpusDocuments } from '../platform/nodejs/corpus-documents.ts';
import { buildDatasetFolder, readManifest, verifyDataset } from '../platform/nodejs/dataset-files.ts';
import { readFileBounded } from '../platform/nodejs/files.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { CodedError } from '../std/outcome.ts';
import { action, type CommandResult, type CommandRun, commandGroup, defineCommand } from './command.ts';
import { integer, oneOf } from './parse.ts';
import { formatBytes, formatCount, type Progress } from './progress.ts';

export interface GenesisBuildOptions {
  readonly out: string;
  readonly name: string;
  readonly licence: string;
  readonly vocab: number;
  readonly origin?: string;
  readonly field: string;
  readonly format?: Format;
  readonly tokenizer?: string;
  readonly shardTokens?: number;
  readonly heldOut: number;
  readonly key?: string;
  readonly force?: boolean;
}

export function register(program: Command): void {
  const group = commandGroup(program, 'genesis', 'build and check datasets');
  registerBuild(group);
  defineCommand(group, {
    name: 'verify',
    summary: 'prove every byte of a dataset',
    description:
      'Checks the manifest, the tokenizer and every shard of a dataset folder or address; names each bad file.',
    examples: [['genesis verify data/state-of-the-union', 'checks the dataset that comes with the program']],
  })
    .argument('<dataset>', 'folder or http(s) address')
    .action(action((_options, run, dataset) => genesisVerify(dataset!, run)));
  defineCommand(group, {
    name: 'info',
    summary: 'show what a dataset holds',
    description: 'Shows the manifest of a dataset: its hash, sources, licences, tokens and shards.',
    examples: [['genesis info data/state-of-the-union', 'shows the dataset that comes with the program']],
  })
    .argument('<dataset>', 'folder or http(s) address')
    .action(action((_options, _run, dataset) => genesisInfo(dataset!)));
}

function registerBuild(group: Command): void {
  defineCommand(group, {
    name: 'build',
    summary: 'make a dataset from text',
    description:
      'Trains a tokenizer on the text, encodes it, cuts it into shards and writes the manifest that names the dataset. ' +
      'Reads .txt, .jsonl (both also .gz) and .parquet, from files or http(s) addresses; files are read twice.',
    examples: [
      ['genesis build book.txt --name book --out data/book', 'from one text file'],
      ['genesis build part-*.jsonl.gz --name posts --vocab 4096 --out data/posts', 'for the small preset'],
    ],
  })
    .argument('<sources...>', 'text files or addresses')
    .requiredOption('--out <folder>', 'folder to make')
    .requiredOption('--name <name>', 'what the dataset is called')
    .option('--licence <licence>', 'of the text, as SPDX expression where there is one', 'unknown')
    .option('--origin <text>', 'where the text comes from, if not what the file name says')
    .option(
      '--vocab <tokens>',
      'size of the vocabulary',
      integer('the vocabulary', { min: 257, max: 65_536 }),
      2048,
    )
    .option('--field <name>', 'field or column that holds the text', 'text')
    .option('--format <format>', `where names do not tell: ${formats.join(', ')}`, oneOf('format', formats))
    .option('--tokenizer <file>', 'use this tokenizer.json instead of training one')
    .option(
      '--shard-tokens <tokens>',
      'tokens of a shard (default: by the size of the text)',
      integer('--shard-tokens'),
    )
    .option(
      '--held-out <shards>',
      'hold out one shard of every so many',
      integer('--held-out'),
      buildDefaults.heldOutEvery,
    )
    .option('--key <file>', 'sign the manifest with this secret key (32 bytes, raw or hex)')
    .option('--force', 'replace an existing dataset folder')
    .action(action<GenesisBuildOptions>((options, run, ...sources) => genesisBuild(sources, options, run)));
}

export async function genesisBuild(
  locations: readonly string[],
  options: GenesisBuildOptions,
  run: CommandRun,
): Promise<CommandResult> {
  const key = options.key === undefined ? undefined : await readKey(options.key);
  const tokenizerJson =
    options.tokenizer === undefined ? undefined : await readFileBounded(options.tokenizer, tokenizerBytesMax);
  const passes = tokenizerJson ? 1 : 2;
  let total = 0;
  for (const location of locations) total += await byteSource(location).byteLength();
  let read = 0;
  const onBytes = (bytes: number) => void (read += bytes);
  const bar = run.progress({ label: 'building', total: passes * total, unit: 'bytes' });
  const corpus = { field: options.field, onBytes, ...(options.format ? { format: options.format } : {}) };
  const built = await buildDatasetFolder(
    options.out,
    {
      name: options.name,
      sources: locations.map((location) => ({
        origin: options.origin ?? byteSource(location).name,
        licence: options.licence,
        documents: () => corpusDocuments(location, corpus),
      })),
      vocabularySize: options.vocab,
      heldOutEvery: options.heldOut,
      signal: run.signal,
      ...(options.shardTokens === undefined ? {} : { shardTokens: options.shardTokens }),
      ...(tokenizerJson ? { tokenizerJson } : {}),
      ...(key ? { key } : {}),
      onProgress: ({ phase, documents }) => bar.update(read, `${phase}, ${formatCount(documents)} documents`),
    },
    { force: options.force === true },
  );
  bar.end();
  const { json, text } = describeDataset(built.published);
  return { json: { folder: options.out, ...json }, text: `${options.out}\n${text}` };
}

async function readKey(path: string) {
  const bytes = await readFileBounded(path, 1024);
  try {
    const text = new TextDecoder().decode(bytes).trim();
    return keyPairFrom(bytes.length === secretKeyBytes ? bytes : fromHex(text));
  } catch (error) {
    throw new CodedError('bad-key', `${path} holds no secp256k1 secret key`, { cause: error });
  }
}

export async function genesisVerify(location: string, run: CommandRun): Promise<CommandResult> {
  let bar: Progress | undefined;
  const report = await verifyDataset(location, (done, total) => {
    bar ??= run.progress({ label: 'verifying', total, unit: 'shards' });
    bar.update(done);
  });
  bar?.end();
  const { problems, published, bytesVerified } = report;
  const lines = problems.map(({ file, detail }) => `${file}: ${detail}`);
  const verdict =
    problems.length === 0
      ? `ok: ${published.manifest.shards.length} shards, ${formatBytes(bytesVerified)} proved`
      : `${problems.length} ${problems.length === 1 ? 'file does' : 'files do'} not match the manifest`;
  return {
    json: {
      ok: problems.length === 0,
      hash: published.hash,
      shards: published.manifest.shards.length,
      bytesVerified,
      problems,
    },
    text: [...lines, verdict, `dataset ${published.hash}`].join('\n'),
    failed: problems.length > 0,
  };
}

export async function genesisInfo(location: string): Promise<CommandResult> {
  return describeDataset(await readManifest(location));
}

/** A manifest for people and for machines. */
export function describeDataset({ manifest, hash, publisher }: PublishedManifest) {
  const sum = (indices: readonly number[]) =>
    indices.reduce((tokens, index) => tokens + manifest.shards[index]!.tokens, 0);
  const training = trainingShards(manifest);
  const json = {
    hash,
    name: manifest.name,
    sources: manifest.sources.map((source) => ({ ...source, hash: toHex(source.hash) })),
    vocabularySize: manifest.vocabularySize,
    tokenizerHash: toHex(manifest.tokenizerHash),
    tokenBytes: manifest.tokenBytes,
    trainingShards: training.length,
    heldOutShards: manifest.heldOut,
    trainingTokens: sum(training),
    heldOutTokens: sum(manifest.heldOut),
    publisher: publisher ? nodeIdOf(publisher.publicKey) : null,
  };
  const bytes = manifest.shards.reduce((total, shard) => total + shard.bytes, 0);
  const lines = [
    `dataset     ${hash}`,
    `name        ${manifest.name}`,
    ...manifest.sources.map(
      ({ origin, licence, documents }) =>
        `source      ${origin} (${licence}), ${formatCount(documents)} documents`,
    ),
    `vocabulary  ${manifest.vocabularySize} tokens`,
    `training    ${formatCount(json.trainingTokens)} tokens in ${training.length} shards`,
    `held out    ${formatCount(json.heldOutTokens)} tokens in ${manifest.heldOut.length} shards`,
    `size        ${formatBytes(bytes)}`,
    `publisher   ${json.publisher ?? 'not signed'}`,
  ];
  return { json, text: lines.join('\n') };
}
