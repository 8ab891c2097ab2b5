/**
 * What a caller and a stage say to each other while text is written: open sessions, append positions, close. Rows and
 * logits travel as f32, because a continuation must not depend on how often it was computed. It knows no peers.
 */
import { z } from 'zod';
import { allFinite, type DecodeCall, type DecodeResult } from '../model/decode-call.ts';
import type { OpenedSession } from '../model/decode-host.ts';
import { type DecodeShape, decodeShapes } from '../model/decode-plan.ts';
import { bytesOf, fromHex, toHex } from '../std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

/** Calls of one message: those of many sessions, or many of one that is computed again. */
export const callsMax = 64;
/** A chunk of rows of the widest model, or this many calls of usual ones. */
export const decodeBytesMax = 16 * 1024 * 1024;
/** Bytes of rows after which a caller begins another message. */
export const rowBytesAimed = 1024 * 1024;

/** A session as its caller names it: 16 random bytes, as hex. */
export const sessionIdBytes = 16;

/** A call with whether its output is wanted; computing again needs only the last. */
export interface WireCall extends DecodeCall {
  readonly wanted: boolean;
}

export type DecodeRequest =
  | {
      readonly kind: 'open';
      readonly stage: number;
      readonly session: string;
      /** The current one when left out. */
      readonly round?: number;
    }
  | { readonly kind: 'run'; readonly stage: number; readonly calls: readonly WireCall[] }
  | { readonly kind: 'close'; readonly stage: number; readonly sessions: readonly string[] };

const stageMax = 4095;

function isWhole(value: unknown, max: number): value is number {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max;
}

function isShape(value: unknown): value is DecodeShape {
  return (decodeShapes as readonly unknown[]).includes(value);
}

function isSessionId(value: unknown): value is Uint8Array {
  return value instanceof Uint8Array && value.length === sessionIdBytes;
}

const whole = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const stage = whole.max(stageMax);
const session = z.instanceof(Uint8Array).refine(isSessionId);
const openSchema = z.tuple([z.literal('open'), stage, session, whole.nullable()]);
const closeSchema = z.tuple([z.literal('close'), stage, z.array(session).min(1).max(callsMax)]);

export function encodeDecodeRequest(request: DecodeRequest): Uint8Array {
  const { kind, stage } = request;
  if (kind === 'open') return encodeCanonical([kind, stage, fromHex(request.session), request.round ?? null]);
  if (kind === 'close') return encodeCanonical([kind, stage, request.sessions.map(fromHex)]);
  const calls = request.calls.map(({ session, position, shape, wanted, entry }): Canonical => {
    return [fromHex(session), position, shape ?? null, wanted, bytesOf(entry)];
  });
  return encodeCanonical([kind, stage, calls]);
}

/** What the entries of a stage are: token ids with the embedding, rows of this width without. */
export interface EntryKind {
  readonly embedding: boolean;
  readonly width: number;
}

/** `malformed`, or `wrong-shape` for an entry that is no whole number of positions. Values are the stage's to check. */
export function decodeDecodeRequest(message: Uint8Array, kind: EntryKind): Outcome<DecodeRequest> {
  const decoded = decodeCanonical(message, decodeBytesMax);
  if (!decoded.ok) return decoded;
  const { value } = decoded;
  if (Array.isArray(value) && value[0] === 'run') return readRun(value, kind);
  const open = openSchema.safeParse(value);
  if (open.success) {
    const [, stage, id, round] = open.data;
    return accept({ kind: 'open', stage, session: toHex(id), ...(round !== null && { round }) });
  }
  const close = closeSchema.safeParse(value);
  if (!close.success) return reject('malformed');
  return accept({ kind: 'close', stage: close.data[1], sessions: close.data[2].map(toHex) });
}

/** By hand, as the results below: a schema takes longer for what every token brings than a small stage computes. */
function readRun(value: readonly unknown[], { embedding, width }: EntryKind): Outcome<DecodeRequest> {
  const [, stage, list] = value;
  if (value.length !== 3 || !isWhole(stage, stageMax) || !Array.isArray(list)) return reject('malformed');
  if (list.length < 1 || list.length > callsMax) return reject('malformed');
  const positionBytes = embedding ? 4 : 4 * width;
  const calls: WireCall[] = [];
  for (const call of list as readonly unknown[]) {
    if (!Array.isArray(call) || call.length !== 5) return reject('malformed');
    const [id, position, shape, wanted, bytes] = call as readonly unknown[];
    const isSound =
      isSessionId(id) &&
      isWhole(position, Number.MAX_SAFE_INTEGER) &&
      (shape === null || isShape(shape)) &&
      typeof wanted === 'boolean' &&
      bytes instanceof Uint8Array;
    if (!isSound) return reject('malformed');
    if (bytes.length === 0 || bytes.length % positionBytes !== 0)
      return reject('wrong-shape', `${bytes.length} bytes of entries`);
    const entry = embedding ? new Int32Array(copyOf(bytes)) : new Float32Array(copyOf(bytes));
    calls.push({ session: toHex(id), position, ...(shape !== null && { shape }), wanted, entry });
  }
  return accept({ kind: 'run', stage, calls });
}

/** Bytes of a message may start at any address; views of numbers may not. */
function copyOf(bytes: Uint8Array): ArrayBuffer {
  return bytes.slice().buffer;
}

export function encodeOpened({ round, engineClass, capacity }: OpenedSession): Uint8Array {
  return encodeCanonical([round, engineClass, capacity]);
}

const openedSchema = z.tuple([whole, z.string().max(64), whole.min(1)]);

export function decodeOpened(message: Uint8Array): Outcome<OpenedSession> {
  const decoded = decodeCanonical(message, 1024);
  if (!decoded.ok) return decoded;
  const parsed = openedSchema.safeParse(decoded.value);
  if (!parsed.success) return reject('malformed');
  const [round, engineClass, capacity] = parsed.data;
  return accept({ round, engineClass, capacity });
}

const codePattern = /^[a-z][a-z-]{0,39}$/;
const detailLengthMax = 200;

/** `wanted` says for each outcome whether its output goes along. */
export function encodeResults(
  outcomes: readonly Outcome<DecodeResult>[],
  wanted: readonly boolean[],
): Uint8Array {
  return encodeCanonical(
    outcomes.map((outcome, i): Canonical => {
      if (!outcome.ok) return [outcome.code, outcome.detail.slice(0, detailLengthMax)];
      const { shape, output } = outcome.value;
      return [shape, wanted[i] ? bytesOf(output) : new Uint8Array(0)];
    }),
  );
}

/** Elements of an answer's output: 0 where none is wanted. `malformed` for an answer that does not fit its request. */
export function decodeResults(
  message: Uint8Array,
  lengths: readonly number[],
): Outcome<readonly Outcome<DecodeResult>[]> {
  const decoded = decodeCanonical(message, decodeBytesMax);
  if (!decoded.ok) return decoded;
  const { value } = decoded;
  if (!Array.isArray(value) || value.length !== lengths.length) return reject('malformed');
  const outcomes: Outcome<DecodeResult>[] = [];
  for (const [i, result] of (value as readonly unknown[]).entries()) {
    if (!Array.isArray(result) || result.length !== 2) return reject('malformed');
    const [code, content] = result as readonly unknown[];
    if (typeof code !== 'string') return reject('malformed');
    if (typeof content === 'string') {
      if (!codePattern.test(code) || content.length > detailLengthMax) return reject('malformed');
      outcomes.push(reject(code, content));
      continue;
    }
    if (!isShape(code) || !(content instanceof Uint8Array)) return reject('malformed');
    if (content.length !== 4 * lengths[i]!) return reject('malformed', `${content.length} bytes of output`);
    const output = new Float32Array(copyOf(content));
    if (!allFinite(output)) return reject('not-finite');
    outcomes.push(accept({ shape: code, output }));
  }
  return accept(outcomes);
}
