/**
 * Frames of a request stream: a length, the exchange they belong to, a kind, a body. Many exchanges share one
 * stream, so the end of a message is known by its length and never by the end of the stream. The reader takes bytes
 * in any pieces and is bounded while it reads; it does not know streams.
 *
 * Layout: u32 length of what follows · u32 exchange · u8 kind · body, big-endian.
 */
import { concatBytes, utf8 } from '../std/bytes.ts';
import { type Rejection, reject } from '../std/outcome.ts';

export type FrameKind = 'request' | 'response' | 'rejection' | 'cancel';

export interface Frame {
  readonly exchange: number;
  readonly kind: FrameKind;
  readonly body: Uint8Array;
}

export const frameHeaderBytes = 9;
/** A rejection's code and detail, together. */
export const rejectionBytesMax = 512;

const kinds: readonly FrameKind[] = ['request', 'response', 'rejection', 'cancel'];
/** The body's buffer grows with what has arrived, not with what was announced. */
const firstAllocationBytes = 64 * 1024;

/** The nine bytes before a body of `bodyBytes`. */
export function frameHeader(exchange: number, kind: FrameKind, bodyBytes: number): Uint8Array {
  const header = new Uint8Array(frameHeaderBytes);
  const view = new DataView(header.buffer);
  view.setUint32(0, bodyBytes + frameHeaderBytes - 4);
  view.setUint32(4, exchange);
  header[8] = kinds.indexOf(kind);
  return header;
}

export function encodeFrame(frame: Frame): Uint8Array {
  return concatBytes(frameHeader(frame.exchange, frame.kind, frame.body.length), frame.body);
}

/** `code`, or `code detail`; the detail is cut where the whole would be too long. */
export function encodeRejection(rejection: Rejection): Uint8Array {
  return utf8(rejection.detail ? `${rejection.code} ${rejection.detail}` : rejection.code).subarray(
    0,
    rejectionBytesMax,
  );
}

const codePattern = /^[a-z0-9-]{1,64}$/;

/** A code that is no code is `malformed`. */
export function decodeRejection(body: Uint8Array): Rejection {
  const text = new TextDecoder().decode(body);
  const space = text.indexOf(' ');
  const code = space < 0 ? text : text.slice(0, space);
  if (!codePattern.test(code)) return reject('malformed', 'a rejection without a code');
  return reject(code, space < 0 ? '' : text.slice(space + 1));
}

export interface FrameReader {
  /**
   * Takes the next bytes and hands on every frame they complete. A rejection (`too-large`, `malformed`) is final:
   * the stream must be given up, since nobody knows where the next frame begins.
   */
  push(bytes: Uint8Array): Rejection | null;
  /** Whether a frame has begun and not ended. */
  isInside(): boolean;
}

/** `bodyBytesMax` is asked as soon as a header is read, before its body is kept. */
export function createFrameReader(
  bodyBytesMax: (kind: FrameKind) => number,
  onFrame: (frame: Frame) => void,
): FrameReader {
  const header = new Uint8Array(frameHeaderBytes);
  let headerFilled = 0;
  let kind: FrameKind = 'request';
  let bodyBytes = 0;
  let body = new Uint8Array(0);
  let bodyFilled = 0;
  let failure: Rejection | null = null;

  function readHeader(): Rejection | null {
    const view = new DataView(header.buffer);
    const length = view.getUint32(0);
    const known = kinds[header[8]!];
    if (known === undefined || length < frameHeaderBytes - 4) return reject('malformed', 'not a frame');
    kind = known;
    bodyBytes = length - (frameHeaderBytes - 4);
    const bytesMax = bodyBytesMax(kind);
    if (bodyBytes > bytesMax)
      return reject('too-large', `${kind} of ${bodyBytes} bytes, at most ${bytesMax}`);
    body = new Uint8Array(Math.min(bodyBytes, firstAllocationBytes));
    bodyFilled = 0;
    return null;
  }

  function takeBody(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, bodyBytes - bodyFilled);
    if (bodyFilled + taken > body.length) {
      const grown = new Uint8Array(Math.min(bodyBytes, Math.max(2 * body.length, bodyFilled + taken)));
      grown.set(body.subarray(0, bodyFilled));
      body = grown;
    }
    body.set(bytes.subarray(0, taken), bodyFilled);
    bodyFilled += taken;
    return taken;
  }

  return {
    isInside: () => headerFilled > 0,
    push(bytes) {
      let offset = 0;
      while (failure === null) {
        if (headerFilled < frameHeaderBytes) {
          const taken = Math.min(bytes.length - offset, frameHeaderBytes - headerFilled);
          header.set(bytes.subarray(offset, offset + taken), headerFilled);
          headerFilled += taken;
          offset += taken;
          if (headerFilled < frameHeaderBytes) break;
          failure = readHeader();
          if (failure) break;
        }
        offset += takeBody(bytes.subarray(offset));
        if (bodyFilled < bodyBytes) break;
        const frame: Frame = { exchange: new DataView(header.buffer).getUint32(4), kind, body };
        headerFilled = 0;
        body = new Uint8Array(0);
        onFrame(frame);
        if (offset >= bytes.length) break;
      }
      return failure;
    },
  };
}
