/**
 * Documents from byte sources, whatever their format. It does not know whether the bytes are in a file or behind an
 * address, and holds no more than one line, one piece of text or one row group at a time.
 */
import { CodedError } from '../../std/outcome.ts';
import { gunzip } from './gzip.ts';
import { readJsonLines } from './jsonl.ts';
import { readParquet } from './parquet.ts';
import type { ByteSource, Document } from './source.ts';
import { readText } from './text.ts';

export const formats = ['text', 'jsonl', 'parquet'] as const;
export type Format = (typeof formats)[number];

const extensions: Readonly<Record<string, Format>> = {
  txt: 'text',
  text: 'text',
  md: 'text',
  jsonl: 'jsonl',
  ndjson: 'jsonl',
  json: 'jsonl',
  parquet: 'parquet',
};

export interface ReadOptions {
  /** Field or column that holds the text. */
  readonly field?: string;
  /** Where the name does not tell it. */
  readonly format?: Format;
}

/** Errors end the iteration as one CodedError that names the source and the line, row or byte. */
export function readDocuments(source: ByteSource, options: ReadOptions = {}): AsyncIterable<Document> {
  const { field = 'text' } = options;
  const path = source.name.replace(/[?#].*$/, '').toLowerCase();
  const gzipped = path.endsWith('.gz');
  const extension = (gzipped ? path.slice(0, -3) : path).split('.').at(-1) ?? '';
  const format = options.format ?? (Object.hasOwn(extensions, extension) ? extensions[extension] : undefined);
  if (!format) {
    throw new CodedError(
      'unknown-format',
      `${source.name}: not a .txt, .jsonl or .parquet file (or .gz of the first two)`,
    );
  }
  if (format === 'parquet') return readParquet(source, field);
  const bytes = gzipped ? gunzip(source.stream(), source.name) : source.stream();
  return format === 'text' ? readText(bytes, source.name) : readJsonLines(bytes, source.name, field);
}
