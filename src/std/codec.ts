/**
 * The canonical codec: DAG-CBOR, one byte string for each value. Decoding accepts canonical bytes only,
 * executes nothing, and is bounded by the caller's size limit.
 * Source: https://ipld.io/specs/codecs/dag-cbor/spec/
 */
import { decode, encode } from '@ipld/dag-cbor';
import { equalBytes } from './bytes.ts';
import { accept, type Outcome, reject } from './outcome.ts';

/** Values with a canonical form. Numbers must be finite; integers beyond 2^53 are bigint. */
export type Canonical =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly Canonical[]
  | { readonly [key: string]: Canonical };

export function encodeCanonical(value: Canonical): Uint8Array {
  return plain(encode(value));
}

/** On Node the library hands out Buffers, whose `slice` shares memory where a Uint8Array's copies. */
function plain(bytes: Uint8Array): Uint8Array {
  if (Object.getPrototypeOf(bytes) === Uint8Array.prototype) return bytes;
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length);
}

/** Decodes untrusted bytes: `too-large`, `malformed` or `not-canonical`. */
export function decodeCanonical(bytes: Uint8Array, bytesMax: number): Outcome<unknown> {
  if (bytes.length > bytesMax) return reject('too-large', `${bytes.length} bytes, at most ${bytesMax}`);
  try {
    const value = decode<Canonical>(plain(bytes));
    if (!equalBytes(encode(value), bytes)) return reject('not-canonical');
    return accept(value);
  } catch (error) {
    return reject('malformed', error instanceof Error ? error.message : String(error));
  }
}
