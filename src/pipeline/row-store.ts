/**
 * Where a stage keeps rows as they travelled, by their hash, round by round, so that what it made of them can be made
 * again. Nobody waits for it and nothing fails with it: what it could not keep is missing, and the round is not provable.
 */
import type { HashHex } from '../std/hash.ts';

export interface RowStore {
  /** Bytes are the store's from now on: nobody changes them. Those of one hash are kept once a round. */
  put(round: number, hash: HashHex, bytes: Uint8Array): void;
  /** Of whatever round that is kept; undefined where it is not. Bytes of another hash are never given. */
  get(hash: HashHex): Promise<Uint8Array | undefined>;
  /** Whether everything that was put in the round is kept; waits until it is written. */
  isComplete(round: number): Promise<boolean>;
  /** Forgets a round. */
  drop(round: number): void;
  close(): Promise<void>;
}
