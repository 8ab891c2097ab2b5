/**
 * The ledger of a running node, as those see it who only read it and hand transactions in: the HTTP API, and through it
 * wallets. Says nothing of how blocks come to be.
 */
import type { Outcome } from '../std/outcome.ts';
import type { Mempool } from './mempool.ts';
import type { LedgerConstants } from './rules.ts';
import type { LedgerState } from './state.ts';
import type { LedgerHead, LedgerStore } from './store.ts';

export interface LedgerPort {
  readonly constants: LedgerConstants;
  /** The newest block that is in `state()`. */
  head(): LedgerHead;
  /** After that block: final, for blocks are only applied once they are. */
  state(): LedgerState;
  /** May lag behind `state()` by the blocks that are on their way to the disk. */
  readonly store: Pick<LedgerStore, 'block' | 'blocks' | 'transaction' | 'transactions'>;
  /** What waits for a block on this node. */
  readonly mempool: Pick<Mempool, 'candidates' | 'newestNonce'>;
  /** Takes a transaction's canonical bytes in and passes it on to other nodes. Codes: those of `Mempool.add`. */
  submit(bytes: Uint8Array): Outcome<{ readonly id: Uint8Array }>;
}
