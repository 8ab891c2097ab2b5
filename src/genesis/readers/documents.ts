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

/** By the name's extension unless it is given. Throws CodedError `unknown-format`. */
export function formatOf(name: string, given?: Format): Format {
  const path = plainName(name).replace(/\.gz$/, '');
  const extension = path.split('.').at(-1) ?? '';
  const format = given ?? (Object.hasOwn(extensions, extension) ? extensions[extension] : undefined);
  if (format) return format;
  throw new CodedError(
    'unknown-format',
    `${name}: not a .txt, .jsonl or .parquet file (or .gz of the first two)`,
  );
}

/** Without an address's query, in lower case. */
function plainName(name: string): string {
  return name.replace(/[?#].*$/, '').toLowerCase();
}

/** Errors end the iteration as one CodedError that names the source and the line, row or byte. */
export function readDocuments(source: ByteSource, options: ReadOptions = {}): AsyncIterable<Document> {
  const { field = 'text' } = options;
  const format = formatOf(source.name, options.format);
  if (format === 'parquet') return readParquet(source, field);
  const gzipped = plainName(source.name).endsWith('.gz');
  const bytes = gzipped ? gunzip(source.stream(), source.name) : source.stream();
  return format === 'text' ? readText(bytes, source.name) : readJsonLines(bytes, source.name, field);
}
