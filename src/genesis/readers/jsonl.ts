/** Documents from JSON Lines: one object a line, the text in one of its fields. */
import { concatBytes } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import type { Document } from './source.ts';

export const lineBytesMax = 64 * 1024 * 1024;
const newline = 0x0a;

/** Throws CodedError `bad-line`, which names the line, for anything but blank lines and objects with the field. */
export async function* readJsonLines(
  bytes: AsyncIterable<Uint8Array>,
  name: string,
  field: string,
): AsyncGenerator<Document> {
  const utf8Decoder = new TextDecoder('utf-8', { fatal: true });
  let number = 0;
  for await (const line of splitLines(bytes, name)) {
    number++;
    const bad = (why: string) => new CodedError('bad-line', `${name}: line ${number}: ${why}`);
    let value: unknown;
    try {
      const text = utf8Decoder.decode(line);
      if (text.trim() === '') continue;
      value = JSON.parse(text);
    } catch (error) {
      throw bad(error instanceof SyntaxError ? 'not valid JSON' : 'not valid UTF-8');
    }
    if (typeof value !== 'object' || value === null) throw bad('not a JSON object');
    const { [field]: text, id } = value as Record<string, unknown>;
    if (typeof text !== 'string') throw bad(`no text in the field "${field}"`);
    yield {
      id: typeof id === 'string' || typeof id === 'number' ? String(id) : String(number),
      text: text.toWellFormed(),
    };
  }
}

async function* splitLines(bytes: AsyncIterable<Uint8Array>, name: string): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = [];
  let length = 0;
  let number = 1;
  for await (const chunk of bytes) {
    let start = 0;
    for (let end = chunk.indexOf(newline); end >= 0; end = chunk.indexOf(newline, start)) {
      yield concatBytes(...parts, chunk.subarray(start, end));
      number++;
      parts = [];
      length = 0;
      start = end + 1;
    }
    parts.push(chunk.subarray(start));
    length += chunk.length - start;
    if (length > lineBytesMax)
      throw new CodedError('bad-line', `${name}: line ${number}: over ${lineBytesMax} bytes`);
  }
  if (length > 0) yield concatBytes(...parts);
}
