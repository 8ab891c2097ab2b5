import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { CodedError } from '../../std/outcome.ts';
import { type CorpusOptions, corpusDocuments } from './corpus-documents.ts';

const folder = await mkdtemp(join(tmpdir(), 'neuroshard-corpus-'));
after(() => rm(folder, { recursive: true }));

const texts = Array.from({ length: 250 }, (_, i) => `document ${i} ${'größer '.repeat(i % 9)}`);
const parquet = new Uint8Array(
  parquetWriteBuffer({ columnData: [{ name: 'text', data: texts, type: 'STRING' }], rowGroupSize: 100 }),
);

async function textsOf(name: string, bytes: Uint8Array, options?: CorpusOptions): Promise<string[]> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  const found: string[] = [];
  for await (const { text } of corpusDocuments(path, options)) found.push(text);
  return found;
}

test('Parquet comes through the worker whole, and what is read is counted', async () => {
  let bytes = 0;
  assert.deepEqual(await textsOf('a.parquet', parquet, { onBytes: (more) => (bytes += more) }), texts);
  assert.ok(bytes >= parquet.length / 2);
  bytes = 0;
  const jsonl = Buffer.from('{"text": "one"}\n');
  assert.deepEqual(await textsOf('a.jsonl', jsonl, { onBytes: (more) => (bytes += more) }), ['one']);
  assert.equal(bytes, jsonl.length);
});

test('errors of the worker keep their code', async () => {
  await assert.rejects(textsOf('a.parquet', parquet, { field: 'body' }), {
    name: 'CodedError',
    code: 'no-such-column',
  });
  await assert.rejects(textsOf('b.parquet', parquet.subarray(9)), {
    name: 'CodedError',
    code: 'parquet-corrupt',
  });
  const missing = corpusDocuments(join(folder, 'none.parquet'));
  await assert.rejects(missing[Symbol.asyncIterator]().next(), { name: 'CodedError', code: 'not-found' });
});

test('a reader that stops early ends the worker', async () => {
  const path = join(folder, 'early.parquet');
  await writeFile(path, parquet);
  for await (const { text } of corpusDocuments(path)) {
    assert.equal(text, texts[0]);
    break;
  }
});

test('whatever byte of the first page is damaged, the end is documents or one coded error', async () => {
  for (let at = 4; at < 40; at += 3) {
    const bytes = parquet.slice();
    bytes[at] = 0xff;
    try {
      await textsOf('damaged.parquet', bytes, { decodeTimeoutMs: 1_000 });
    } catch (error) {
      assert.ok(error instanceof CodedError, String(error));
      assert.match(error.code, /^parquet-/);
    }
  }
});

test('damage that keeps the decoder busy for ever ends the worker', async () => {
  // A length in the page header: the decoder then counts from a negative number.
  const bytes = parquet.slice();
  bytes[22] = 0xff;
  await assert.rejects(textsOf('endless.parquet', bytes, { decodeTimeoutMs: 500 }), {
    code: 'parquet-corrupt',
    message: /^endless\.parquet: decoding (makes no progress|takes too much memory)$/,
  });
});
