/** One document from a plain text file, in pieces of about a megabyte so that a file of any size can be read. */
import { concatBytes } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import type { Document } from './source.ts';

export const pieceBytes = 1024 * 1024;

/** Pieces are cut the same way however the bytes arrive. Throws CodedError `not-utf8`, which names the byte range. */
export async function* readText(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Document> {
  let pending: Uint8Array = new Uint8Array();
  let parts: Uint8Array[] = [];
  let length = 0;
  let offset = 0;
  const piece = (end: number, continued: boolean): Document => {
    const document = { id: name, text: decode(pending.subarray(0, end), name, offset), continued };
    pending = pending.subarray(end);
    length = pending.length;
    offset += end;
    return document;
  };
  for await (const chunk of bytes) {
    parts.push(chunk);
    length += chunk.length;
    if (length <= pieceBytes) continue;
    pending = concatBytes(pending, ...parts);
    parts = [];
    while (pending.length > pieceBytes) yield piece(cutAt(pending), true);
  }
  pending = concatBytes(pending, ...parts);
  yield piece(pending.length, false);
}

/** After the last line of the first megabyte; where there is no line end, between two characters. */
function cutAt(bytes: Uint8Array): number {
  const lineEnd = bytes.lastIndexOf(0x0a, pieceBytes - 1) + 1;
  if (lineEnd > 0) return lineEnd;
  let cut = pieceBytes;
  while (cut > pieceBytes - 4 && (bytes[cut]! & 0xc0) === 0x80) cut--;
  return cut;
}

function decode(bytes: Uint8Array, name: string, offset: number): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: offset > 0 }).decode(bytes);
  } catch {
    throw new CodedError(
      'not-utf8',
      `${name}: bytes ${offset} to ${offset + bytes.length} are not valid UTF-8`,
    );
  }
}
