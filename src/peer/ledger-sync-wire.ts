/**
 * What is said between a node that joins the ledger and those that hold it: which epochs' ends, which snapshot, which
 * chunk. Checks form and size only; what the answers are worth is found out by who asked.
 */
import type { EpochRun } from '../consensus/epoch-types.ts';
import { decodeRun, encodeRun } from '../consensus/epoch-wire.ts';
import { defaultLimits } from '../consensus/limits.ts';
import { epochEndsProtocol } from '../net/protocol.ts';
import { decodeCanonical, encodeCanonical } from '../std/codec.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';

const requestBytesMax = 32;

/** [epoch], or [block number, index of a chunk]. */
export function encodeCounts(...counts: readonly number[]): Uint8Array {
  return encodeCanonical([...counts]);
}

/** So many counts and nothing else; `schema` and the codes of decoding. */
export function decodeCounts(bytes: Uint8Array, count: number): Outcome<readonly number[]> {
  const decoded = decodeCanonical(bytes, requestBytesMax);
  if (!decoded.ok) return decoded;
  const list: readonly unknown[] = Array.isArray(decoded.value) ? decoded.value : [];
  if (list.length !== count || !list.every(isCount)) return reject('schema', `${count} counts`);
  return accept(list);
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

export function encodeEnds(ends: readonly EpochRun[]): Uint8Array {
  return encodeCanonical(ends.map(encodeRun));
}

/** Codes: `schema` and those of `decodeRun`. */
export function decodeEnds(bytes: Uint8Array, networkId: Uint8Array): Outcome<readonly EpochRun[]> {
  const decoded = decodeCanonical(bytes, epochEndsProtocol.responseBytesMax);
  if (!decoded.ok) return decoded;
  const list: unknown = decoded.value;
  if (!Array.isArray(list) || list.length > defaultLimits.catchUpBlocksMax) return reject('schema', 'ends');
  const ends: EpochRun[] = [];
  for (const item of list as unknown[]) {
    if (!(item instanceof Uint8Array)) return reject('schema', 'end');
    const run = decodeRun(item, networkId, defaultLimits);
    if (!run.ok) return run;
    ends.push(run.value);
  }
  return accept(ends);
}
