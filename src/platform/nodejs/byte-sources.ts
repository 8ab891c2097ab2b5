/**
 * Bytes of a corpus from a local file or over HTTP, at the reader's pace. HTTP answers are bounded and timed, and a
 * range is used only when it is exactly what was asked for. Knows nothing of formats.
 */
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { ByteSource } from '../../genesis/readers/source.ts';
import { must } from '../../std/assert.ts';
import { concatBytes } from '../../std/bytes.ts';
import { CodedError } from '../../std/outcome.ts';
import { fileError } from './files.ts';

const requestTimeoutMs = 60_000;
const idleTimeoutMs = 30_000;
const attemptsMax = 3;

export function isUrl(location: string): boolean {
  return /^https?:\/\//i.test(location);
}

/** A path, or an http(s) address. */
export function byteSource(location: string): ByteSource {
  return isUrl(location) ? httpSource(location) : fileSource(location);
}

/** Named by its base name, so that a dataset does not depend on where the corpus lies. */
export function fileSource(path: string): ByteSource {
  return {
    name: basename(path),
    stream: async function* () {
      try {
        yield* createReadStream(path, { highWaterMark: 256 * 1024 });
      } catch (error) {
        throw fileError(error, 'read', path);
      }
    },
    byteLength: async () => {
      try {
        return (await stat(path)).size;
      } catch (error) {
        throw fileError(error, 'read', path);
      }
    },
    read: async (start, end) => {
      try {
        const file = await open(path, 'r');
        try {
          const bytes = new Uint8Array(end - start);
          let length = 0;
          while (length < bytes.length) {
            const { bytesRead } = await file.read(bytes, length, bytes.length - length, start + length);
            if (bytesRead === 0) throw new CodedError('file-error', `${path} ends before byte ${end}`);
            length += bytesRead;
          }
          return bytes;
        } finally {
          await file.close();
        }
      } catch (error) {
        throw fileError(error, 'read', path);
      }
    },
  };
}

export function httpSource(url: string): ByteSource {
  return {
    name: url,
    stream: async function* () {
      const idle = new AbortController();
      const timer = setTimeout(
        () => idle.abort(new Error(`no data for ${idleTimeoutMs / 1000} s`)),
        idleTimeoutMs,
      );
      try {
        const response = await request(url, { signal: idle.signal });
        for await (const chunk of must(response.body, 'a body')) {
          timer.refresh();
          yield chunk;
          timer.refresh();
        }
      } catch (error) {
        throw httpError(url, error);
      } finally {
        clearTimeout(timer);
      }
    },
    byteLength: async () => {
      const signal = AbortSignal.timeout(requestTimeoutMs);
      const response = await request(url, { headers: { range: 'bytes=0-0' }, signal });
      await response.body?.cancel();
      const total = /^bytes \d+-\d+\/(\d+)$/.exec(response.headers.get('content-range') ?? '')?.[1];
      if (response.status !== 206 || !total)
        throw new CodedError('no-ranges', `${url}: the server does not serve byte ranges`);
      return Number(total);
    },
    read: async (start, end) => {
      const bytes = await readUrl(url, end - start, { headers: { range: `bytes=${start}-${end - 1}` } }, 206);
      if (bytes.length !== end - start) {
        throw new CodedError('http-error', `${url}: ${bytes.length} bytes instead of ${end - start}`);
      }
      return bytes;
    },
  };
}

/** The whole answer, at most `bytesMax` bytes of it: `http-error`, `not-found` or `too-large`. */
export async function readUrl(
  url: string,
  bytesMax: number,
  init: RequestInit = {},
  status = 200,
): Promise<Uint8Array> {
  const response = await request(url, { ...init, signal: AbortSignal.timeout(requestTimeoutMs) });
  if (response.status !== status) {
    await response.body?.cancel();
    throw new CodedError('http-error', `${url}: the server answered ${response.status} instead of ${status}`);
  }
  const parts: Uint8Array[] = [];
  let length = 0;
  try {
    for await (const part of response.body ?? []) {
      length += part.length;
      if (length > bytesMax) throw new CodedError('too-large', `${url}: over ${bytesMax} bytes`);
      parts.push(part);
    }
  } catch (error) {
    throw httpError(url, error);
  }
  return concatBytes(...parts);
}

/** A refused connection or a server's own failure is tried again; a refusal of the request is not. */
async function request(url: string, init: RequestInit): Promise<Response> {
  for (let attempt = 1; ; attempt++) {
    let failure: CodedError;
    try {
      const response = await fetch(url, init);
      if (response.ok) return response;
      await response.body?.cancel();
      const code = response.status === 404 ? 'not-found' : 'http-error';
      failure = new CodedError(code, `${url}: the server answered ${response.status}`);
      if (response.status < 500) throw failure;
    } catch (error) {
      failure = httpError(url, error);
      if (error instanceof CodedError) throw failure;
    }
    if (attempt === attemptsMax) throw failure;
    await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
  }
}

function httpError(url: string, error: unknown): CodedError {
  if (error instanceof CodedError) return error;
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return new CodedError('http-error', `${url}: ${cause instanceof Error ? cause.message : String(cause)}`, {
    cause: error,
  });
}
