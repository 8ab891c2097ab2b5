/**
 * How transactions travel: this node's own and those of wallets go out by gossip, others' come in, and consensus is woken
 * when something waits that should not wait for the next round. What is valid the mempool says.
 */

import type { Waiting } from '../ledger/mempool.ts';
import { transactionBytesMax } from '../ledger/transaction.ts';
import { createRateLimiter } from '../net/rate-limit.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import { toHex } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import type { Outcome } from '../std/outcome.ts';
import type { LedgerKeeper } from './ledger.ts';

export const transactionTopic = 'transaction';

/** Kinds that nodes send by themselves as they train: they go along with the next round's list, or wait this long. */
const patientKinds: ReadonlySet<string> = new Set(['state', 'proof', 'challenge']);
const patientMs = 10_000;
/** Kinds that somebody waits for: at once, if there was no block for them just now. */
const promptKinds: ReadonlySet<string> = new Set(['transfer', 'stake', 'unstake', 'escrow', 'refund']);
/** Others are gathered for this long, so that one block takes what comes together. */
const impatientMs = 200;
/** This node's own are said again, for somebody may have been away. */
const repeatMs = 30_000;
/** From one sender. */
const perMinuteMax = 1_200;

/** Codes that an honest sender never causes, whatever it has seen of the ledger. */
const misbehaviour: ReadonlySet<string> = new Set([
  'malformed',
  'not-canonical',
  'too-large',
  'malformed-transaction',
  'unknown-kind',
  'unsigned',
  'bad-signature',
  'not-signed-by-author',
]);

export interface Transactions {
  /** Takes one in from here, and tells the others. */
  submit(bytes: Uint8Array): Outcome<Waiting>;
  /** After a block: what still waits is not forgotten. */
  noteBlock(): void;
  close(): void;
}

export interface TransactionsOptions {
  readonly ledger: LedgerKeeper;
  readonly transport: Transport;
  readonly clock: Clock;
  /** Asks consensus for a decision. */
  readonly wake: () => void;
  /** What came by gossip and is not taken. */
  readonly onRefused?: (bytes: Uint8Array, code: string) => void;
}

export function createTransactions(options: TransactionsOptions): Transactions {
  const { ledger, transport, clock, wake } = options;
  const { mempool } = ledger;
  const rates = createRateLimiter(clock);
  /** Submitted here and not in a block yet, by id. */
  const own = new Map<string, Uint8Array>();
  let dueMs = Number.POSITIVE_INFINITY;
  let wokenMs = Number.NEGATIVE_INFINITY;
  let cancelWake = () => {};
  let cancelRepeat = () => {};
  let closed = false;

  const publish = (bytes: Uint8Array) => void transport.publish(transactionTopic, bytes).catch(() => {});
  const wakeIn = (delayMs: number) => {
    const atMs = clock.nowMs() + delayMs;
    if (closed || atMs >= dueMs) return;
    cancelWake();
    dueMs = atMs;
    cancelWake = clock.setTimer(delayMs, () => {
      dueMs = Number.POSITIVE_INFINITY;
      wokenMs = clock.nowMs();
      if (mempool.size().transactions > 0) wake();
    });
  };
  const wakeFor = ({ transaction: { kind } }: Waiting) => {
    if (patientKinds.has(kind)) wakeIn(patientMs);
    else wakeIn(promptKinds.has(kind) ? Math.max(0, wokenMs + impatientMs - clock.nowMs()) : impatientMs);
  };
  const repeat = () => {
    for (const bytes of own.values()) publish(bytes);
    cancelRepeat = clock.setTimer(repeatMs, repeat);
  };
  cancelRepeat = clock.setTimer(repeatMs, repeat);

  const unsubscribe = transport.subscribe(transactionTopic, transactionBytesMax, (from: NodeId, bytes) => {
    if (!rates.take(from, perMinuteMax)) return;
    const added = mempool.add(bytes);
    if (added.ok) return wakeFor(added.value);
    options.onRefused?.(bytes, added.code);
    if (misbehaviour.has(added.code)) transport.penalize(from, added.code);
  });

  return {
    submit: (bytes) => {
      const added = mempool.add(bytes);
      if (!added.ok) return added;
      own.set(toHex(added.value.id), bytes);
      publish(bytes);
      wakeFor(added.value);
      return added;
    },
    noteBlock: () => {
      const waiting = mempool.candidates();
      const ids = new Set(waiting.map(({ id }) => toHex(id)));
      for (const id of own.keys()) if (!ids.has(id)) own.delete(id);
      for (const one of waiting) wakeFor(one);
    },
    close: () => {
      closed = true;
      cancelWake();
      cancelRepeat();
      unsubscribe();
    },
  };
}
