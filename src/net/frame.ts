/**
 * Frames of a request stream: a length, a kind, a body. A stream is kept open and carries one call after another, so
 * the end of a message is known by its length and never by the end of the stream. The reader takes bytes in any
 * pieces and asks before it keeps a body; it does not know streams.
 *
 * Layout: u32 length of what follows · u8 kind · body, big-endian.
 */
import { concatBytes, utf8 } from '../std/bytes.ts';
import { type Rejection, reject } from '../std/outcome.ts';

export type FrameKind = 'request' | 'response' | 'rejection' | 'progress';

export interface Frame {
  readonly kind: FrameKind;
  readonly body: Uint8Array;
}

export const frameHeaderBytes = 5;
/** A rejection's code and detail, together. */
export const rejectionBytesMax = 512;

const kinds: readonly FrameKind[] = ['request', 'response', 'rejection', 'progress'];

/** The five bytes before a body of `bodyBytes`. */
export function frameHeader(kind: FrameKind, bodyBytes: number): Uint8Array {
  const header = new Uint8Array(frameHeaderBytes);
  new DataView(header.buffer).setUint32(0, bodyBytes + frameHeaderBytes - 4);
  header[4] = kinds.indexOf(kind);
  return header;
}

export function encodeFrame(frame: Frame): Uint8Array {
  return concatBytes(frameHeader(frame.kind, frame.body.length), frame.body);
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

/** What becomes of a frame whose header has come: kept, read and forgotten, or the end of its stream. */
export type Admission = 'take' | 'skip' | Rejection;

export interface FrameReader {
  /**
   * Takes the next bytes and hands on every frame they complete. A rejection is final: the stream must be given up,
   * since nobody knows where the next frame begins.
   */
  push(bytes: Uint8Array): Rejection | null;
  /** Whether a frame has begun and not ended. */
  isInside(): boolean;
}

/** `admit` is asked as soon as a header is read, before anything is set aside for the body. */
export function createFrameReader(
  admit: (kind: FrameKind, bodyBytes: number) => Admission,
  onFrame: (frame: Frame) => void,
): FrameReader {
  const header = new Uint8Array(frameHeaderBytes);
  let headerFilled = 0;
  let kind: FrameKind = 'request';
  let bodyBytes = 0;
  /** Null while a body is skipped. */
  let body: Uint8Array | null = null;
  let bodyFilled = 0;
  let failure: Rejection | null = null;

  function readHeader(): Rejection | null {
    const length = new DataView(header.buffer).getUint32(0);
    const known = kinds[header[4]!];
    if (known === undefined || length < frameHeaderBytes - 4) return reject('malformed', 'not a frame');
    kind = known;
    bodyBytes = length - (frameHeaderBytes - 4);
    bodyFilled = 0;
    const admission = admit(kind, bodyBytes);
    if (typeof admission === 'object') return admission;
    // Memory that nothing has been written to yet costs nothing, so a large body needs no growing, and no copies.
    body = admission === 'take' ? new Uint8Array(bodyBytes) : null;
    return null;
  }

  function takeBody(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, bodyBytes - bodyFilled);
    body?.set(bytes.subarray(0, taken), bodyFilled);
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
        const whole = body;
        headerFilled = 0;
        body = null;
        if (whole) onFrame({ kind, body: whole });
        if (offset >= bytes.length) break;
      }
      return failure;
    },
  };
}
