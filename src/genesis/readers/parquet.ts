/**
 * Documents from a Parquet file, one row group of the text column at a time: over HTTP only the footer and that column
 * are fetched. Every claim of the file about itself is bounded before it is followed.
 */
import {
  type AsyncBuffer,
  type FileMetaData,
  parquetMetadataAsync,
  parquetReadObjects,
  parquetSchema,
} from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { CodedError } from '../../std/outcome.ts';
import type { ByteSource, Document } from './source.ts';

export const parquetLimits = {
  footerBytesMax: 256 * 1024 * 1024,
  /** Of one row group. */
  columnChunkBytesMax: 1024 * 1024 * 1024,
  rowsMax: 100_000_000,
} as const;

/** Throws CodedError `parquet-corrupt`, `parquet-too-large` or `no-such-column`; rows are named from 0. */
export async function* readParquet(source: ByteSource, column: string): AsyncGenerator<Document> {
  const file: AsyncBuffer = {
    byteLength: await source.byteLength(),
    slice: async (start, end) => exactBuffer(await source.read(start, end ?? file.byteLength)),
  };
  const metadata = await readFooter(source, file);
  const columns = parquetSchema(metadata).children.map(({ element }) => element.name);
  if (!columns.includes(column)) {
    throw new CodedError(
      'no-such-column',
      `${source.name}: no column "${column}"; there are ${columns.join(', ')}`,
    );
  }
  let rowStart = 0;
  for (const [group, { num_rows, columns: chunks }] of metadata.row_groups.entries()) {
    const chunk = chunks.find(({ meta_data }) => meta_data?.path_in_schema[0] === column)?.meta_data;
    if (!chunk || chunk.num_values !== num_rows || chunk.total_compressed_size > file.byteLength) {
      throw corrupt(source, `row group ${group}: "${column}" does not fit its row group`);
    }
    if (
      chunk.total_uncompressed_size > parquetLimits.columnChunkBytesMax ||
      num_rows > parquetLimits.rowsMax
    ) {
      throw new CodedError(
        'parquet-too-large',
        `${source.name}: row group ${group} of "${column}" is too large`,
      );
    }
    const rowEnd = rowStart + Number(num_rows);
    const where = `row group ${group}, rows ${rowStart} to ${rowEnd - 1}`;
    const rows = await readRows(
      source,
      { file, metadata, columns: [column], rowStart, rowEnd, compressors },
      where,
    );
    for (const [i, row] of rows.entries()) {
      const text: unknown = row[column];
      if (typeof text !== 'string') throw corrupt(source, `row ${rowStart + i}: no text in "${column}"`);
      yield { id: String(rowStart + i), text: text.toWellFormed() };
    }
    rowStart = rowEnd;
  }
}

async function readFooter(source: ByteSource, file: AsyncBuffer): Promise<FileMetaData> {
  try {
    if (file.byteLength < 12) throw new Error('too short');
    const tail = new DataView(await file.slice(file.byteLength - 8));
    if (tail.getUint32(4, false) !== 0x50415231) throw new Error('not a Parquet file');
    const footerBytes = tail.getUint32(0, true);
    if (footerBytes > Math.min(file.byteLength, parquetLimits.footerBytesMax))
      throw new Error('footer length');
    return await parquetMetadataAsync(file);
  } catch (error) {
    throw corrupt(source, 'footer', error);
  }
}

type ReadOptions = Parameters<typeof parquetReadObjects>[0];

async function readRows(
  source: ByteSource,
  options: ReadOptions,
  where: string,
): Promise<Record<string, unknown>[]> {
  let rows: Record<string, unknown>[];
  try {
    rows = await parquetReadObjects(options);
  } catch (error) {
    throw corrupt(source, where, error);
  }
  const expected = options.rowEnd! - options.rowStart!;
  if (rows.length !== expected) throw corrupt(source, `${where}: ${rows.length} rows instead of ${expected}`);
  return rows;
}

/** Failures of the source itself (a missing file, a lost connection) keep their own code. */
function corrupt(source: ByteSource, where: string, error?: unknown): CodedError {
  if (error instanceof CodedError) return error;
  const why = error instanceof Error ? `: ${error.message.split('\n')[0]}` : '';
  return new CodedError('parquet-corrupt', `${source.name}: ${where}${why}`, { cause: error });
}

function exactBuffer(bytes: Uint8Array): ArrayBuffer {
  return bytes.byteLength === bytes.buffer.byteLength
    ? (bytes.buffer as ArrayBuffer)
    : (bytes.slice().buffer as ArrayBuffer);
}
