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
  const total = outcomes.reduce((sum, outcome) => sum + (outcome.ok ? outcome.value.output.length : 0), 0);
  const outputs = new Float32Array(total);
  let offset = 0;
  const packed = outcomes.map((outcome): DecodeBatchResult['outcomes'][number] => {
    if (!outcome.ok) return outcome;
    const { shape, output } = outcome.value;
    outputs.set(output, offset);
    offset += output.length;
    return accept({ shape, length: output.length });
  });
  return { outcomes: packed, outputs };
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
