import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { readDocuments } from '../../genesis/readers/documents.ts';
import type { ByteSource } from '../../genesis/readers/source.ts';
import { byteSource } from './byte-sources.ts';

const folder = await mkdtemp(join(tmpdir(), 'neuroshard-sources-'));
const texts = Array.from({ length: 2000 }, (_, i) => `row ${i} of a corpus`);
const parquet = new Uint8Array(
  parquetWriteBuffer({
    columnData: [
      { name: 'other', data: texts.map((text) => text.repeat(20)), type: 'STRING' },
      { name: 'text', data: texts, type: 'STRING' },
    ],
  }),
);
const jsonl = new Uint8Array(gzipSync('{"text": "over HTTP"}\n'));

let served = 0;
let failures = 0;

/** Serves ranges like a static file host; some paths misbehave. */
const server = createServer((request: IncomingMessage, response: ServerResponse) => {
  const { pathname } = new URL(request.url!, 'http://host');
  if (pathname === '/flaky.jsonl.gz' && failures-- > 0) return void response.writeHead(503).end();
  if (pathname === '/cut.jsonl.gz') {
    response.writeHead(200, { 'content-length': jsonl.length });
    response.write(jsonl.subarray(0, 10), () => response.destroy());
    return;
  }
  const file = pathname.endsWith('.parquet') ? parquet : pathname.endsWith('.jsonl.gz') ? jsonl : undefined;
  if (!file) return void response.writeHead(404).end();
  const range = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  if (!range || pathname === '/no-ranges.parquet') return void response.writeHead(200).end(file);
  const [start, end] = [Number(range[1]), Number(range[2])];
  const part = file.subarray(start, pathname === '/short.parquet' && end > start ? end : end + 1);
  served += part.length;
  response.writeHead(206, { 'content-range': `bytes ${start}-${end}/${file.length}` }).end(part);
});
await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

after(async () => {
  server.close();
  server.closeAllConnections();
  await rm(folder, { recursive: true });
});

async function textsOf(source: ByteSource): Promise<string[]> {
  const found: string[] = [];
  for await (const { text } of readDocuments(source)) found.push(text);
  return found;
}

test('Parquet from a file', async () => {
  const path = join(folder, 'corpus.parquet');
  await writeFile(path, parquet);
  const source = byteSource(path);
  assert.equal(source.name, 'corpus.parquet');
  assert.deepEqual(await textsOf(source), texts);
  await assert.rejects(source.read(parquet.length - 4, parquet.length + 4), { code: 'file-error' });
});

test('a missing file is one clear error, however it is read', async () => {
  const source = byteSource(join(folder, 'none.jsonl'));
  await assert.rejects(textsOf(source), { code: 'not-found', message: /none\.jsonl/ });
  await assert.rejects(source.byteLength(), { code: 'not-found' });
  await assert.rejects(source.read(0, 1), { code: 'not-found' });
});

test('Parquet over HTTP ranges fetches the footer and the column, not the file', async () => {
  const large = parquetWriteBuffer({
    columnData: [{ name: 'text', data: texts, type: 'STRING' }],
  }).byteLength;
  served = 0;
  assert.deepEqual(await textsOf(byteSource(`${base}/corpus.parquet`)), texts);
  assert.ok(served >= large / 2);
});

test('a gzipped stream over HTTP, also when the server fails twice first', async () => {
  failures = 2;
  assert.deepEqual(await textsOf(byteSource(`${base}/flaky.jsonl.gz`)), ['over HTTP']);
});

test('what a server does wrong is one coded error', async () => {
  await assert.rejects(textsOf(byteSource(`${base}/none.parquet.txt`)), { code: 'not-found' });
  await assert.rejects(textsOf(byteSource(`${base}/no-ranges.parquet`)), { code: 'no-ranges' });
  await assert.rejects(textsOf(byteSource(`${base}/short.parquet`)), {
    code: 'http-error',
    message: /bytes instead of/,
  });
  await assert.rejects(textsOf(byteSource(`${base}/cut.jsonl.gz`)), { code: 'http-error' });
  await assert.rejects(textsOf(byteSource('http://127.0.0.1:1/corpus.jsonl')), { code: 'http-error' });
});
