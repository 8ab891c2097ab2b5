/** The f32 codec: little-endian floats as they are. Exact, so there is no error to feed back. */
import { bytesOf } from '../../std/bytes.ts';
import { reject } from '../../std/outcome.ts';
import type { Codec } from './codec.ts';

export const f32: Codec = {
  name: 'f32',
  id: 0,
  blockLength: 1,
  feedbackDecay: 1,
  payloadBytes: (length) => 4 * length,
  encode: (payload, x) => payload.set(bytesOf(x)),
  decode: (out, payload) => bytesOf(out).set(payload),
  check: (payload, length) => {
    const aligned = payload.byteOffset % 4 === 0 ? payload : payload.slice();
    const words = new Int32Array(aligned.buffer, aligned.byteOffset, length);
    // An exponent of ones, and only that, carries into the sign; one look at the end is ten times faster than one each.
    let carried = 0;
    for (let i = 0; i < length; i++) carried |= (words[i]! & 0x7f800000) + 0x00800000;
    return carried < 0 ? reject('not-finite', 'NaN or infinity in a contribution') : undefined;
  },
};
