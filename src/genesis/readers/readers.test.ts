import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { utf8 } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { type ReadOptions, readDocuments } from './documents.ts';
import type { ByteSource, Document } from './source.ts';
import { pieceBytes } from './text.ts';

/** A source that hands out its bytes in chunks of the given size. */
function source(name: string, bytes: Uint8Array, chunk = 7): ByteSource {
  return {
    name,
    stream: async function* () {
      for (let start = 0; start < bytes.length; start += chunk) {
        yield bytes.subarray(start, start + chunk);
      }
    },
    byteLength: async () => bytes.length,
    read: async (start, end) => bytes.slice(start, end),
  };
}

async function read(from: ByteSource, options?: ReadOptions): Promise<Document[]> {
  const documents: Document[] = [];
  for await (const document of readDocuments(from, options)) documents.push(document);
  return documents;
}

const lines = [
  { id: 'one', text: 'first\nwith a line end' },
  { id: 2, text: 'zweites, größer 🙂' },
  { text: '' },
];
const jsonl = utf8(`\ufeff${lines.map((line) => JSON.stringify(line)).join('\r\n')}\n\n`);
const expected = [
  { id: 'one', text: 'first\nwith a line end' },
  { id: '2', text: 'zweites, größer 🙂' },
  { id: '3', text: '' },
];

test('JSON Lines, plain and gzipped, however the bytes arrive', async () => {
  for (const chunk of [1, 7, 10_000]) {
    assert.deepEqual(await read(source('a.jsonl', jsonl, chunk)), expected);
    assert.deepEqual(await read(source('a.JSONL.GZ', gzipSync(jsonl), chunk)), expected);
  }
});

test('another field, and a format that the name does not tell', async () => {
  const bytes = utf8('{"content": "hello"}');
  assert.deepEqual(
    await read(source('https://host/data?x=.txt', bytes), { field: 'content', format: 'jsonl' }),
    [{ id: '1', text: 'hello' }],
  );
});

test('half a surrogate pair in JSON becomes U+FFFD, so that the text is well-formed', async () => {
  assert.equal((await read(source('a.jsonl', utf8('{"text": "a\\ud83dz"}'))))[0]!.text, 'a\ufffdz');
});

const badLines: readonly (readonly [Uint8Array, RegExp])[] = [
  [utf8('{"text": "ok"}\n{"text": \n'), /^a\.jsonl: line 2: not valid JSON$/],
  [utf8('{"text": "ok"}\n\n[1]\n'), /^a\.jsonl: line 3: no text in the field "text"$/],
  [utf8('17\n'), /line 1: not a JSON object/],
  [utf8('null\n'), /line 1: not a JSON object/],
  [utf8('{"text": 5}\n'), /line 1: no text in the field "text"/],
  [new Uint8Array([0x7b, 0xff, 0x0a]), /line 1: not valid UTF-8/],
];

test('a bad line is one error that names it', async () => {
  for (const [bytes, message] of badLines) {
    await assert.rejects(read(source('a.jsonl', bytes)), { name: 'CodedError', code: 'bad-line', message });
  }
});

test('truncated or damaged gzip is one error, after what came before it', async () => {
  // Incompressible, so that the damage is not at the end of what was read.
  const noise = Array.from({ length: 5000 }, (_, i) => `{"text": "${(i * 2654435761) % 4294967296}"}`).join(
    '\n',
  );
  const zipped = new Uint8Array(gzipSync(utf8(noise)));
  const damaged = zipped.slice();
  damaged.fill(0xff, zipped.length >> 1, (zipped.length >> 1) + 40);
  for (const bytes of [
    zipped.subarray(0, zipped.length - 4),
    zipped.subarray(0, zipped.length >> 1),
    damaged,
    jsonl,
  ]) {
    await assert.rejects(read(source('a.jsonl.gz', bytes, 1000)), (error) => {
      assert.ok(error instanceof CodedError);
      assert.ok(error.code === 'gzip-corrupt' || error.code === 'bad-line', error.code);
      assert.match(error.message, /^a\.jsonl\.gz: /);
      return true;
    });
  }
});

test('an error of the source itself comes through gunzip as it is', async () => {
  const failing: ByteSource = {
    ...source('a.jsonl.gz', gzipSync(jsonl)),
    stream: async function* () {
      yield gzipSync(jsonl).subarray(0, 20);
      throw new CodedError('http-error', 'connection lost');
    },
  };
  await assert.rejects(read(failing), { code: 'http-error' });
});

test('a reader that stops early closes its source', async () => {
  let closed = false;
  const endless: ByteSource = {
    ...source('a.jsonl.gz', new Uint8Array()),
    stream: async function* () {
      try {
        yield gzipSync(jsonl);
        for (;;) yield new Uint8Array(100);
      } finally {
        closed = true;
      }
    },
  };
  for await (const document of readDocuments(endless)) {
    assert.equal(document.id, 'one');
    break;
  }
  assert.equal(closed, true);
});

test('text is one document, in pieces cut at line ends the same way however the bytes arrive', async () => {
  const line = 'Zeile mit größeren Zeichen 🙂\n';
  const text = line.repeat(Math.ceil((2.5 * pieceBytes) / line.length));
  const pieces = await read(source('a.txt', utf8(text), 65_536));
  assert.ok(pieces.length >= 3);
  assert.equal(pieces.map((piece) => piece.text).join(''), text);
  assert.deepEqual(
    pieces.map((piece) => piece.continued),
    pieces.map((_, i) => i < pieces.length - 1),
  );
  for (const piece of pieces) assert.ok(piece.text.endsWith('\n') && utf8(piece.text).length <= pieceBytes);
  assert.deepEqual(await read(source('a.txt', utf8(text), 999_983)), pieces);
  assert.deepEqual(
    await read(source('a.txt.gz', gzipSync(text), 50_000)),
    pieces.map((piece) => ({ ...piece, id: 'a.txt.gz' })),
  );
});

test('text without line ends is cut between characters', async () => {
  const text = `${'x'.repeat(pieceBytes - 2)}🙂🙂`;
  const pieces = await read(source('a.txt', utf8(text), 4096));
  assert.deepEqual(
    pieces.map((piece) => piece.text),
    ['x'.repeat(pieceBytes - 2), '🙂🙂'],
  );
});

test('text that is not UTF-8 is one error; a byte order mark is dropped', async () => {
  await assert.rejects(read(source('a.txt', new Uint8Array([0x61, 0xe9, 0x62]))), { code: 'not-utf8' });
  assert.equal((await read(source('a.txt', utf8('\ufeffhello'))))[0]!.text, 'hello');
});

test('an unknown kind of file is refused before it is read', () => {
  for (const name of ['a.pdf', 'a', 'a.gz', 'constructor', 'x.toString']) {
    assert.throws(() => readDocuments(source(name, jsonl)), { code: 'unknown-format' });
  }
});

const texts = Array.from({ length: 250 }, (_, i) => `document ${i} ${'größer '.repeat(i % 9)}`);
const parquet = new Uint8Array(
  parquetWriteBuffer({
    columnData: [
      { name: 'url', data: texts.map((_, i) => `https://host/${i}`), type: 'STRING' },
      { name: 'text', data: texts, type: 'STRING' },
      { name: 'score', data: texts.map((_, i) => i / 2), type: 'DOUBLE' },
    ],
    rowGroupSize: 100,
  }),
);

test('Parquet: every row of every row group, reading only the column that is asked for', async () => {
  let bytesRead = 0;
  const counted: ByteSource = {
    ...source('a.parquet', parquet),
    read: async (start, end) => {
      bytesRead += end - start;
      return parquet.slice(start, end);
    },
  };
  const documents = await read(counted);
  assert.deepEqual(
    documents,
    texts.map((text, i) => ({ id: String(i), text })),
  );
  assert.ok(bytesRead > 0);
  const urls = await read(source('a.parquet', parquet), { field: 'url' });
  assert.equal(urls[249]!.text, 'https://host/249');
});

test('Parquet: a missing or wrong column, and damage, give one coded error', async () => {
  await assert.rejects(read(source('a.parquet', parquet), { field: 'body' }), {
    code: 'no-such-column',
    message: /no column "body"; there are url, text, score/,
  });
  await assert.rejects(read(source('a.parquet', parquet), { field: 'score' }), {
    code: 'parquet-corrupt',
    message: /row 0: no text in "score"/,
  });
  for (const bytes of [parquet.subarray(0, 3), parquet.subarray(0, -20), jsonl, new Uint8Array(100)]) {
    await assert.rejects(read(source('a.parquet', bytes)), {
      code: 'parquet-corrupt',
      message: /a\.parquet: footer/,
    });
  }
});
