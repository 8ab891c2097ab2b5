/** The ledger of a node without a network: a real state, store and mempool, and blocks when the test says so. */
import assert from 'node:assert/strict';
import { apply } from '../src/ledger/apply.ts';
import { encodeBlock } from '../src/ledger/block.ts';
import type { Change } from '../src/ledger/draft.ts';
import { memoryLedgerStore } from '../src/ledger/memory-store.ts';
import { createMempool, type Mempool } from '../src/ledger/mempool.ts';
import { chainOf } from '../src/ledger/money.ts';
import type { LedgerPort } from '../src/ledger/port.ts';
import { assembleBlock } from '../src/ledger/propose.ts';
import { commit } from '../src/ledger/state.ts';
import type { LedgerHead, LedgerStore } from '../src/ledger/store.ts';
import { tableNames } from '../src/ledger/tables.ts';
import { encodeTransaction, type Transaction } from '../src/ledger/transaction.ts';
import { type LedgerWorld, worldStartMs } from './ledger-world.ts';

export interface TestLedger {
  readonly port: LedgerPort;
  readonly store: LedgerStore;
  readonly mempool: Mempool;
  /** Puts what waits into a block, and the block where a node would; `own`: what the proposer puts in. */
  decide(own?: readonly Transaction[]): Promise<void>;
  /** Straight into the mempool. */
  add(transaction: Transaction): void;
}

/** `world` must have what it was endowed with before. */
export async function testLedger(world: LedgerWorld, nowMs = () => worldStartMs): Promise<TestLedger> {
  const { state, constants } = world;
  const store = memoryLedgerStore();
  const verify = () => true;
  const mempool = createMempool({ head: () => state, constants, clock: { nowMs }, verify });
  let head: LedgerHead = {
    ...{ number: 0, hash: new Uint8Array(32), height: 0, epoch: 0 },
    stateRoot: state.root(),
  };
  const rows: Change[] = tableNames.flatMap((table) =>
    state.keys(table).map((key): Change => ({ table, key, row: state.get(table, key) })),
  );
  await store.install(head, rows);
  return {
    port: {
      constants,
      head: () => head,
      state: () => state,
      store,
      mempool,
      submit: (bytes) => mempool.add(bytes),
    },
    store,
    mempool,
    add: (transaction) => assert.ok(mempool.add(encodeTransaction(transaction)).ok),
    decide: async (own = []) => {
      const { proposer, beaconPreimage, beaconCommitment } = world.block([]);
      const waiting = mempool.candidates().map(({ transaction }) => transaction);
      const assembled = assembleBlock({
        ...{ state, constants, proposer, beaconPreimage, beaconCommitment, own, waiting, verify },
        nowMs: Math.max(worldStartMs, chainOf(state).timeMs) + 1_000,
      });
      assert.ok(assembled.ok);
      const { block } = assembled.value;
      const applied = apply(state, block, constants, verify);
      assert.ok(applied.ok);
      const { hash, changes, receipts: transactions } = applied.value;
      commit(state, changes);
      const { number, timeMs } = block;
      head = { number, hash, height: 2 * number, epoch: 0, stateRoot: state.root() };
      const payload = encodeBlock(block);
      await store.append({ ...head, timeMs, proposer, payload, certificate: hash, transactions }, changes);
      mempool.prune();
    },
  };
}
