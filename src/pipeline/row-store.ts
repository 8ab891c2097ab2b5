/**
 * Where a stage keeps rows as they travelled, by their hash, round by round, so that what it made of them can be made
 * again; and the store that keeps them in memory. Nobody waits for a store and nothing fails with it: of a round of which
 * it could not keep all, nothing is claimed.
 */
import { type HashHex, sha256Hex } from '../std/hash.ts';

export interface RowStore {
  /** Bytes are the store's from now on: nobody changes them. Those of one hash are kept once a round. */
  put(round: number, hash: HashHex, bytes: Uint8Array): void;
  /** Of whatever round that is kept; undefined where it is not. Bytes of another hash are never given. */
  get(hash: HashHex): Promise<Uint8Array | undefined>;
  /** Whether everything that was put in the round is kept; waits until it is written. */
  isComplete(round: number): Promise<boolean>;
  /** Forgets a round: it is as if nothing had ever been put in it. */
  drop(round: number): void;
  /** Forgets everything. */
  close(): Promise<void>;
}

/** `bytesMax`: of all rounds together. A round that comes to it is incomplete and keeps nothing. */
export function createMemoryRows(bytesMax: number): RowStore {
  const rounds = new Map<number, Map<HashHex, Uint8Array> | 'incomplete'>();
  let bytesKept = 0;
  const release = (round: number) => {
    const rows = rounds.get(round) ?? 'incomplete';
    if (rows !== 'incomplete') for (const { length } of rows.values()) bytesKept -= length;
    rounds.delete(round);
  };
  return {
    put: (round, hash, bytes) => {
      const rows = rounds.get(round) ?? new Map<HashHex, Uint8Array>();
      if (rows === 'incomplete' || rows.has(hash)) return;
      if (bytesKept + bytes.length > bytesMax) {
        release(round);
        rounds.set(round, 'incomplete');
        return;
      }
      bytesKept += bytes.length;
      rounds.set(round, rows.set(hash, bytes));
    },
    get: async (hash) => {
      for (const rows of rounds.values()) {
        const bytes = rows === 'incomplete' ? undefined : rows.get(hash);
        if (bytes && sha256Hex(bytes) === hash) return bytes;
      }
      return undefined;
    },
    isComplete: async (round) => rounds.get(round) !== 'incomplete',
    drop: release,
    close: async () => {
      rounds.clear();
      bytesKept = 0;
    },
  };
}
