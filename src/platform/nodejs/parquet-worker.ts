/**
 * Decodes one Parquet file in a thread of its own, a batch of documents for each request. A damaged file can make the
 * decoder loop or grow without end: whoever started this thread ends it then.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { readParquet } from '../../genesis/readers/parquet.ts';
import type { Document } from '../../genesis/readers/source.ts';
import { must } from '../../std/assert.ts';
import { CodedError } from '../../std/outcome.ts';
import { byteSource } from './byte-sources.ts';

export interface ParquetJob {
  /** A path or an http(s) address. */
  readonly location: string;
  readonly column: string;
}

export type ParquetMessage =
  | { readonly type: 'reading' }
  | { readonly type: 'read'; readonly bytes: number }
  | { readonly type: 'documents'; readonly documents: readonly Document[]; readonly last: boolean }
  | { readonly type: 'failed'; readonly code: string | null; readonly message: string };

const batchCharacters = 4 * 1024 * 1024;

const port = must(parentPort, 'a worker has a parent');
const { location, column } = workerData as ParquetJob;
const post = (message: ParquetMessage) => port.postMessage(message);
const source = byteSource(location);
const documents = readParquet(
  {
    ...source,
    read: async (start, end) => {
      post({ type: 'reading' });
      const bytes = await source.read(start, end);
      post({ type: 'read', bytes: bytes.length });
      return bytes;
    },
  },
  column,
);

async function nextBatch(): Promise<ParquetMessage> {
  const batch: Document[] = [];
  try {
    for (let characters = 0; characters < batchCharacters; ) {
      const { done, value } = await documents.next();
      if (done) return { type: 'documents', documents: batch, last: true };
      batch.push(value);
      characters += value.text.length;
    }
    return { type: 'documents', documents: batch, last: false };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return { type: 'failed', code: error instanceof CodedError ? error.code : null, message };
  }
}

port.on('message', async () => post(await nextBatch()));
