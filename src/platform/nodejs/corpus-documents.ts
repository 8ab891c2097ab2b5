/**
 * Documents of a corpus by path or address. Text and JSON Lines are read here; Parquet is decoded in a worker that is
 * ended when it makes no progress or wants too much memory, because a damaged file can do that to the decoder.
 */
import { Worker } from 'node:worker_threads';
import { formatOf, type ReadOptions, readDocuments } from '../../genesis/readers/documents.ts';
import type { ByteSource, Document } from '../../genesis/readers/source.ts';
import { CodedError } from '../../std/outcome.ts';
import { byteSource } from './byte-sources.ts';
import { programFile } from './installation.ts';
import type { ParquetJob, ParquetMessage } from './parquet-worker.ts';

export interface CorpusOptions extends ReadOptions {
  /** Called with the length of each part of the corpus that was read. */
  readonly onBytes?: (bytes: number) => void;
  /** Longest time that the Parquet decoder may take for one row group. */
  readonly decodeTimeoutMs?: number;
}

const decodeTimeoutMsDefault = 60_000;
const workerMemoryMbMax = 3_072;

/** As `readDocuments`, by location. */
export function corpusDocuments(location: string, options: CorpusOptions = {}): AsyncIterable<Document> {
  const source = byteSource(location);
  if (formatOf(source.name, options.format) === 'parquet') return parquetDocuments(location, options);
  return readDocuments(counted(source, options.onBytes), options);
}

function counted(source: ByteSource, onBytes: CorpusOptions['onBytes']): ByteSource {
  return {
    ...source,
    stream: async function* () {
      for await (const chunk of source.stream()) {
        onBytes?.(chunk.length);
        yield chunk;
      }
    },
  };
}

async function* parquetDocuments(location: string, options: CorpusOptions): AsyncGenerator<Document> {
  const job: ParquetJob = { location, column: options.field ?? 'text' };
  const worker = new Worker(programFile('src/platform/nodejs/parquet-worker'), {
    workerData: job,
    resourceLimits: { maxOldGenerationSizeMb: workerMemoryMbMax },
  });
  try {
    for (;;) {
      const { documents, last } = await requestBatch(worker, location, options);
      yield* documents;
      if (last) return;
    }
  } finally {
    await worker.terminate();
  }
}

type Batch = Extract<ParquetMessage, { readonly type: 'documents' }>;

/** One batch; only the time between reads counts against the decoder. */
function requestBatch(worker: Worker, location: string, options: CorpusOptions): Promise<Batch> {
  const { decodeTimeoutMs = decodeTimeoutMsDefault, onBytes } = options;
  const corrupt = (why: string) => new CodedError('parquet-corrupt', `${byteSource(location).name}: ${why}`);
  return new Promise<Batch>((resolve, reject) => {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const watch = () => {
      timer = setTimeout(() => reject(corrupt('decoding makes no progress')), decodeTimeoutMs);
    };
    worker.removeAllListeners();
    worker.on('message', (message: ParquetMessage) => {
      clearTimeout(timer);
      if (message.type === 'documents') return resolve(message);
      if (message.type === 'failed') {
        return reject(
          message.code ? new CodedError(message.code, message.message) : new Error(message.message),
        );
      }
      if (message.type === 'reading') return;
      onBytes?.(message.bytes);
      watch();
    });
    worker.on('error', (error: Error & { code?: string }) => {
      clearTimeout(timer);
      reject(error.code === 'ERR_WORKER_OUT_OF_MEMORY' ? corrupt('decoding takes too much memory') : error);
    });
    worker.on('exit', () => {
      clearTimeout(timer);
      reject(new Error('the Parquet worker ended by itself'));
    });
    watch();
    worker.postMessage('next');
  });
}
