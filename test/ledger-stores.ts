/** A ledger kept in memory beside each store, so that it outlives a node's crash as long as the store does. */
import { memoryLedgerStore } from '../src/ledger/memory-store.ts';
import type { LedgerStore } from '../src/ledger/store.ts';
import type { Store } from '../src/std/store.ts';

const besides = new WeakMap<Store, LedgerStore>();

export function ledgerStoreBeside(store: Store): LedgerStore {
  const known = besides.get(store) ?? memoryLedgerStore();
  besides.set(store, known);
  return known;
}
