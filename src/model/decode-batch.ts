/**
 * Decode calls and their results packed into one array each way: a batch of many small arrays costs more to send to
 * another thread than to compute. It checks and computes nothing.
 */
import { assert } from '../std/assert.ts';
import { accept, type Outcome } from '../std/outcome.ts';
import type { DecodeCall, DecodeResult } from './decode-call.ts';
import type { DecodeShape } from './decode-plan.ts';

export interface DecodeBatch {
  readonly calls: readonly {
    readonly session: string;
    readonly position: number;
    readonly shape?: DecodeShape;
    /** Elements of its entry. */
    readonly length: number;
  }[];
  /** Of all calls, one after another. */
  readonly entries: Int32Array | Float32Array;
}

export interface DecodeBatchResult {
  readonly outcomes: readonly Outcome<{ readonly shape: DecodeShape; readonly length: number }>[];
  /** Of all calls that were made, one after another. */
  readonly outputs: Float32Array;
}

/** The entries are all tokens or all rows. */
export function packCalls(calls: readonly DecodeCall[]): DecodeBatch {
  const total = calls.reduce((sum, { entry }) => sum + entry.length, 0);
  const isTokens = calls[0]?.entry instanceof Int32Array;
  const entries = isTokens ? new Int32Array(total) : new Float32Array(total);
  let offset = 0;
  const packed = calls.map(({ entry, session, position, shape }) => {
    assert(entry instanceof Int32Array === isTokens, 'tokens and rows in one batch');
    entries.set(entry, offset);
    offset += entry.length;
    return { session, position, length: entry.length, ...(shape && { shape }) };
  });
  return { calls: packed, entries };
}

/** Their entries are views. */
export function unpackCalls({ calls, entries }: DecodeBatch): DecodeCall[] {
  let offset = 0;
  return calls.map(({ length, ...call }) => {
    offset += length;
    return { ...call, entry: entries.subarray(offset - length, offset) };
  });
}

export function packResults(outcomes: readonly Outcome<DecodeResult>[]): DecodeBatchResult {
  const outputs = outcomes.flatMap((outcome) => (outcome.ok ? [outcome.value.output] : []));
  const packed = outcomes.map((outcome): DecodeBatchResult['outcomes'][number] => {
    if (!outcome.ok) return outcome;
    const { shape, output } = outcome.value;
    return accept({ shape, length: output.length });
  });
  return { outcomes: packed, outputs: asOne(outputs) };
}

/** The parts one after another: without copying, where they are the whole of one buffer already. */
function asOne(parts: readonly Float32Array[]): Float32Array {
  const buffer = parts[0]?.buffer;
  let bytes = 0;
  let isWhole = buffer !== undefined;
  for (const part of parts) {
    isWhole &&= part.buffer === buffer && part.byteOffset === bytes;
    bytes += part.byteLength;
  }
  if (buffer && isWhole && buffer.byteLength === bytes) return new Float32Array(buffer);
  const joined = new Float32Array(bytes / 4);
  let offset = 0;
  for (const part of parts) {
    joined.set(part, offset);
    offset += part.length;
  }
  return joined;
}

/** Their outputs are views. */
export function unpackResults({ outcomes, outputs }: DecodeBatchResult): Outcome<DecodeResult>[] {
  let offset = 0;
  return outcomes.map((outcome) => {
    if (!outcome.ok) return outcome;
    const { shape, length } = outcome.value;
    offset += length;
    return accept({ shape, output: outputs.subarray(offset - length, offset) });
  });
}
