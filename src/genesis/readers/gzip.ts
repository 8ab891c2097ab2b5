/** Gunzips a byte stream with the platform's own decompressor, at the reader's pace. */
import { CodedError } from '../../std/outcome.ts';

/** Damaged or truncated data ends the iteration with CodedError `gzip-corrupt`. */
export async function* gunzip(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  const input = bytes[Symbol.asyncIterator]();
  const compressed = new ReadableStream<Uint8Array<ArrayBuffer>>(
    {
      pull: async (controller) => {
        const { done, value } = await input.next();
        if (done) controller.close();
        else controller.enqueue(value as Uint8Array<ArrayBuffer>);
      },
      cancel: async () => void (await input.return?.()),
    },
    { highWaterMark: 0 },
  );
  const reader = compressed.pipeThrough(new DecompressionStream('gzip')).getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } catch (error) {
    if (error instanceof CodedError) throw error;
    throw new CodedError('gzip-corrupt', `${name}: the gzip data is damaged or ends early`, { cause: error });
  } finally {
    await reader.cancel().catch(() => undefined);
    await input.return?.();
  }
}
