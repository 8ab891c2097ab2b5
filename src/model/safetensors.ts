/**
 * Reading and writing safetensors as pure bytes. A file is untrusted: every field of its header is checked before any
 * tensor is looked at, and tensors must tile the data exactly. It knows no model and no file system.
 * Source: https://github.com/huggingface/safetensors (format), whose rules on holes and header size it follows.
 */
import { assert } from '../std/assert.ts';
import { bytesOf, concatBytes, utf8 } from '../std/bytes.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

const elementBytes = {
  F32: 4,
  I32: 4,
  U32: 4,
  F16: 2,
  BF16: 2,
  I16: 2,
  U16: 2,
  F64: 8,
  I64: 8,
  U64: 8,
  I8: 1,
  U8: 1,
  BOOL: 1,
} as const;

export type SafetensorsDtype = keyof typeof elementBytes;

/** The format's own limit on the header, in bytes. */
export const safetensorsHeaderBytesMax = 100_000_000;
const rankMax = 8;

export interface SafetensorsEntry {
  readonly name: string;
  readonly dtype: SafetensorsDtype;
  readonly shape: readonly number[];
  /** Byte range [start, end) in the data that follows the header. */
  readonly start: number;
  readonly end: number;
}

export interface SafetensorsHeader {
  readonly metadata: ReadonlyMap<string, string>;
  /** In the order of their data. */
  readonly entries: readonly SafetensorsEntry[];
  /** Where the data begins in the file. */
  readonly dataOffset: number;
}

export interface SafetensorsFile extends SafetensorsHeader {
  /** The bytes of each tensor, as views of the file. */
  readonly tensors: ReadonlyMap<string, SafetensorsEntry & { readonly bytes: Uint8Array }>;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isSize(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** A hostile value, short enough for a log line. */
function describe(value: unknown): string {
  return typeof value === 'string' ? value.slice(0, 40) : typeof value;
}

/** The header's length in bytes, from the first eight bytes of a file of `fileBytes` bytes. */
export function safetensorsHeaderLength(prefix: Uint8Array, fileBytes: number): Outcome<number> {
  if (prefix.length < 8 || fileBytes < 8) return reject('safetensors-truncated', 'no header length');
  const length = new DataView(prefix.buffer, prefix.byteOffset, 8).getBigUint64(0, true);
  if (length > BigInt(safetensorsHeaderBytesMax))
    return reject('safetensors-header', `header of ${length} bytes`);
  if (Number(length) > fileBytes - 8) return reject('safetensors-truncated', `header of ${length} bytes`);
  return accept(Number(length));
}

function parseEntry(name: string, raw: unknown, dataBytes: number): Outcome<SafetensorsEntry> {
  if (!isRecord(raw)) return reject('safetensors-header', `${name}: not an object`);
  const { dtype, shape, data_offsets: offsets } = raw;
  if (typeof dtype !== 'string' || !Object.hasOwn(elementBytes, dtype)) {
    return reject('safetensors-dtype', `${name}: dtype ${describe(dtype)}`);
  }
  if (!Array.isArray(shape) || shape.length > rankMax || !shape.every(isSize)) {
    return reject('safetensors-shape', `${name}: shape is not a list of at most ${rankMax} sizes`);
  }
  if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(isSize)) {
    return reject('safetensors-offsets', `${name}: no data_offsets`);
  }
  const [start, end] = offsets as [number, number];
  if (start > end) return reject('safetensors-offsets', `${name}: [${start}, ${end})`);
  if (end > dataBytes)
    return reject('safetensors-truncated', `${name}: ends at ${end} of ${dataBytes} bytes`);
  const count = shape.reduce((product: number, length: number) => product * length, 1);
  if (count * elementBytes[dtype as SafetensorsDtype] !== end - start) {
    return reject('safetensors-shape', `${name}: ${dtype} [${shape}] in ${end - start} bytes`);
  }
  return accept({ name, dtype: dtype as SafetensorsDtype, shape, start, end });
}

function parseMetadata(raw: unknown): Outcome<ReadonlyMap<string, string>> {
  if (raw === undefined) return accept(new Map());
  if (!isRecord(raw)) return reject('safetensors-header', 'metadata is not an object');
  const pairs = Object.entries(raw);
  for (const [key, value] of pairs) {
    if (typeof value !== 'string') return reject('safetensors-header', `metadata ${key} is not text`);
  }
  return accept(new Map(pairs as [string, string][]));
}

/** Tensors must lie end to end and fill the data: no holes, no overlaps, nothing hidden. */
function checkTiling(entries: readonly SafetensorsEntry[], dataBytes: number): Outcome<true> {
  let end = 0;
  for (const entry of entries) {
    if (entry.start !== end)
      return reject('safetensors-offsets', `${entry.name}: starts at ${entry.start}, not ${end}`);
    end = entry.end;
  }
  if (end !== dataBytes) return reject('safetensors-offsets', `${dataBytes - end} bytes belong to no tensor`);
  return accept(true);
}

/**
 * Checks a header against the size of the whole file. Codes: `safetensors-header`, `-truncated`, `-dtype`, `-shape`,
 * `-offsets`. Lets a reader on disk fetch tensors one by one.
 */
export function parseSafetensorsHeader(header: Uint8Array, fileBytes: number): Outcome<SafetensorsHeader> {
  const dataOffset = 8 + header.length;
  const dataBytes = fileBytes - dataOffset;
  if (dataBytes < 0) return reject('safetensors-truncated', `file of ${fileBytes} bytes`);
  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(header));
  } catch {
    return reject('safetensors-header', 'not JSON');
  }
  if (!isRecord(json)) return reject('safetensors-header', 'not an object');
  const entries: SafetensorsEntry[] = [];
  let metadata: ReadonlyMap<string, string> = new Map();
  for (const [name, raw] of Object.entries(json)) {
    if (name === '__metadata__') {
      const parsed = parseMetadata(raw);
      if (!parsed.ok) return parsed;
      metadata = parsed.value;
      continue;
    }
    const parsed = parseEntry(name, raw, dataBytes);
    if (!parsed.ok) return parsed;
    entries.push(parsed.value);
  }
  entries.sort((a, b) => a.start - b.start || a.end - b.end);
  const tiling = checkTiling(entries, dataBytes);
  return tiling.ok ? accept({ metadata, entries, dataOffset }) : tiling;
}

/** A whole file in memory; tensors are views of it. Codes as in `parseSafetensorsHeader`. */
export function readSafetensors(file: Uint8Array): Outcome<SafetensorsFile> {
  const length = safetensorsHeaderLength(file, file.length);
  if (!length.ok) return length;
  const header = parseSafetensorsHeader(file.subarray(8, 8 + length.value), file.length);
  if (!header.ok) return header;
  const { entries, dataOffset } = header.value;
  const tensors = new Map(
    entries.map((entry) => {
      const bytes = file.subarray(dataOffset + entry.start, dataOffset + entry.end);
      return [entry.name, { ...entry, bytes }] as const;
    }),
  );
  return accept({ ...header.value, tensors });
}

/** Widens half-precision floats (IEEE 754 binary16). */
function f16ToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(bytes.length / 2);
  for (let i = 0; i < out.length; i++) {
    const bits = view.getUint16(2 * i, true);
    const exponent = (bits >>> 10) & 31;
    const fraction = bits & 1023;
    let magnitude = fraction === 0 ? Number.POSITIVE_INFINITY : Number.NaN;
    if (exponent === 0) magnitude = fraction * 2 ** -24;
    else if (exponent < 31) magnitude = (1024 + fraction) * 2 ** (exponent - 25);
    out[i] = bits & 0x8000 ? -magnitude : magnitude;
  }
  return out;
}

/** Widens bfloat16: the upper half of an f32. */
function bf16ToF32(bytes: Uint8Array): Float32Array<ArrayBuffer> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bits = new Uint32Array(bytes.length / 2);
  for (let i = 0; i < bits.length; i++) bits[i] = view.getUint16(2 * i, true) << 16;
  return new Float32Array(bits.buffer);
}

/** A copy of a floating-point tensor as f32; `safetensors-dtype` for any other. */
export function decodeF32(dtype: SafetensorsDtype, bytes: Uint8Array): Outcome<Float32Array<ArrayBuffer>> {
  if (dtype === 'F32') return accept(new Float32Array(new Uint8Array(bytes).buffer));
  if (dtype === 'F16') return accept(f16ToF32(bytes));
  if (dtype === 'BF16') return accept(bf16ToF32(bytes));
  if (dtype === 'F64') return accept(Float32Array.from(new Float64Array(new Uint8Array(bytes).buffer)));
  return reject('safetensors-dtype', `${dtype} where floating point was expected`);
}

export interface SafetensorsSource {
  readonly name: string;
  readonly shape: readonly number[];
  readonly data: Float32Array | Int32Array | Uint8Array;
}

function dtypeOf(data: SafetensorsSource['data']): SafetensorsDtype {
  if (data instanceof Float32Array) return 'F32';
  return data instanceof Int32Array ? 'I32' : 'U8';
}

/**
 * Length prefix and header of a file holding `sources` in this order; their bytes follow it. Padded so that the data
 * begins at a multiple of eight.
 */
export function safetensorsHead(
  sources: readonly SafetensorsSource[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  let offset = 0;
  const entries: [string, unknown][] = [];
  if (Object.keys(metadata).length > 0) entries.push(['__metadata__', metadata]);
  for (const { name, shape, data } of sources) {
    const count = shape.reduce((product, length) => product * length, 1);
    assert(count === data.length, `${name}: ${data.length} elements as [${shape}]`);
    const end = offset + data.byteLength;
    entries.push([name, { dtype: dtypeOf(data), shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  assert(new Set(entries.map(([name]) => name)).size === entries.length, 'two tensors of one name');
  const json = utf8(
    `{${entries.map(([name, entry]) => `${JSON.stringify(name)}:${JSON.stringify(entry)}`)}}`,
  );
  const length = Math.ceil(json.length / 8) * 8;
  assert(length <= safetensorsHeaderBytesMax, 'header too large');
  const head = new Uint8Array(8 + length).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(length), true);
  head.set(json, 8);
  return head;
}

/** A whole file. */
export function writeSafetensors(
  sources: readonly SafetensorsSource[],
  metadata: Readonly<Record<string, string>> = {},
): Uint8Array {
  return concatBytes(safetensorsHead(sources, metadata), ...sources.map(({ data }) => bytesOf(data)));
}
