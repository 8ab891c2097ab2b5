/**
 * Transactions that wait for a block: bounded in number, bytes and for each author, and each of them valid on the newest
 * state when it came in, after those of its author that came before. Knows no network and decides nothing: what it offers
 * is a block's worth of candidates.
 */
import { nodeIdOf } from '../identity/keys.ts';
import { toHex } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { applyTransaction } from './apply.ts';
import type { LedgerView } from './draft.ts';
import { rulesByKind } from './kinds.ts';
import { accountOf, chainOf } from './money.ts';
import type { LedgerConstants } from './rules.ts';
import { createDraft } from './state.ts';
import { decodeTransaction, type Transaction, transactionId, type VerifySignature } from './transaction.ts';

export interface MempoolLimits {
  readonly transactionsMax: number;
  readonly bytesMax: number;
  readonly perAuthorMax: number;
  /** After this a transaction that no block took is dropped. */
  readonly ageMsMax: number;
}

export const defaultMempoolLimits: MempoolLimits = {
  transactionsMax: 4_096,
  bytesMax: 8 * 1024 * 1024,
  perAuthorMax: 64,
  ageMsMax: 600_000,
};

export interface MempoolOptions {
  /** The state after the newest block. */
  readonly head: () => LedgerView;
  readonly constants: LedgerConstants;
  readonly clock: Pick<Clock, 'nowMs'>;
  /** Shared with `apply`, so that no signature is verified twice. */
  readonly verify: VerifySignature;
  /**
   * What voters check beside the rules, evidence above all: one transaction that they refuse makes them refuse its whole
   * block, so it must not wait here. Asked last.
   */
  readonly accepts?: (transaction: Transaction) => Outcome<unknown>;
  readonly limits?: Partial<MempoolLimits>;
}

export interface Waiting {
  readonly transaction: Transaction;
  /** 32 bytes. */
  readonly id: Uint8Array;
  /** Node id. */
  readonly author: string;
  readonly bytes: number;
  readonly sinceMs: number;
}

export interface Mempool {
  /**
   * Takes untrusted bytes in. Codes: those of decoding and of `applyTransaction`, `not-signed-by-author` (only proposers
   * put such in), `known`, `future-nonce`, `too-many-of-author`, `mempool-full`, and those of `accepts`.
   */
  add(bytes: Uint8Array): Outcome<Waiting>;
  /** In the order they came, but each author's by nonce: for `assembleBlock`. */
  candidates(): readonly Waiting[];
  /** After a block: drops what it holds, what can never count any more, and what is too old. */
  prune(): void;
  /** Drops those that a proposer found refused (`assembleBlock`). */
  remove(transactions: readonly Transaction[]): void;
  /** `id`: 32 bytes. */
  has(id: Uint8Array): boolean;
  /** The nonce that the author's next transaction must exceed. */
  newestNonce(nodeId: string): number;
  size(): { readonly transactions: number; readonly bytes: number };
}

/** The largest step of an author's nonce into the future: a clock's milliseconds, and a day. */
export const nonceAheadMax = 24 * 3_600_000;

export function createMempool(options: MempoolOptions): Mempool {
  const { head, constants, clock, verify } = options;
  const limits = { ...defaultMempoolLimits, ...options.limits };
  const byAuthor = new Map<string, Waiting[]>();
  const byId = new Map<string, Waiting>();
  let bytesHeld = 0;

  const drop = (one: Waiting) => {
    const rest = byAuthor.get(one.author)!.filter((other) => other !== one);
    if (rest.length > 0) byAuthor.set(one.author, rest);
    else byAuthor.delete(one.author);
    byId.delete(toHex(one.id));
    bytesHeld -= one.bytes;
  };
  const keep = (one: Waiting) => {
    const all = [...(byAuthor.get(one.author) ?? []), one];
    byAuthor.set(
      one.author,
      all.sort((a, b) => a.transaction.nonce - b.transaction.nonce),
    );
    byId.set(toHex(one.id), one);
    bytesHeld += one.bytes;
  };
  const isFull = (more: number) => byId.size >= limits.transactionsMax || bytesHeld + more > limits.bytesMax;
  /** Room is made at the cost of whoever has most waiting, if that is more than the newcomer has. */
  const makeRoom = (author: string, more: number): boolean => {
    while (isFull(more)) {
      let most = byAuthor.get(author) ?? [];
      const own = most.length;
      for (const theirs of byAuthor.values()) if (theirs.length > most.length) most = theirs;
      if (most.length <= own + 1) return false;
      // The last by nonce: none of theirs that stay waits for it.
      drop(most.at(-1)!);
    }
    return true;
  };
  /** On the newest state, after the author's earlier ones. */
  const check = (one: Waiting): Outcome<unknown> => {
    const chain = chainOf(head());
    const timeMs = Math.max(clock.nowMs(), chain.timeMs + 1);
    const context = { constants, number: chain.number + 1, timeMs, proposer: '' };
    const draft = createDraft(head());
    for (const earlier of byAuthor.get(one.author) ?? []) {
      if (earlier.transaction.nonce >= one.transaction.nonce) break;
      applyTransaction(draft, earlier.transaction, context, verify);
    }
    return applyTransaction(draft, one.transaction, context, verify);
  };

  return {
    add: (bytes) => {
      const decoded = decodeTransaction(bytes);
      if (!decoded.ok) return decoded;
      const transaction = decoded.value;
      const { kind, publicKey, nonce } = transaction;
      if (!publicKey || rulesByKind.get(kind)?.origin === 'block')
        return reject('not-signed-by-author', kind);
      const id = transactionId(constants.networkId, transaction);
      if (byId.has(toHex(id))) return reject('known');
      if (nonce > clock.nowMs() + nonceAheadMax) return reject('future-nonce', `${nonce}`);
      const author = nodeIdOf(publicKey);
      const sinceMs = clock.nowMs();
      const one: Waiting = { transaction, id, author, bytes: bytes.length, sinceMs };
      const ofAuthor = byAuthor.get(author) ?? [];
      if (ofAuthor.length >= limits.perAuthorMax)
        return reject('too-many-of-author', `${ofAuthor.length} wait`);
      if (ofAuthor.some((other) => other.transaction.nonce === nonce))
        return reject('stale-nonce', `${nonce}`);
      const checked = check(one);
      if (!checked.ok) return checked;
      const wanted = options.accepts?.(transaction);
      if (wanted && !wanted.ok) return wanted;
      if (!makeRoom(author, one.bytes)) return reject('mempool-full', `${byId.size} transactions wait`);
      keep(one);
      return accept(one);
    },
    candidates: () => {
      const taken = new Map<string, number>();
      // Each entry gives its place to the author's next by nonce.
      return [...byId.values()].map(({ author }) => {
        const index = taken.get(author) ?? 0;
        taken.set(author, index + 1);
        return byAuthor.get(author)![index]!;
      });
    },
    prune: () => {
      const oldestMs = clock.nowMs() - limits.ageMsMax;
      for (const one of [...byId.values()]) {
        const isSpent = one.transaction.nonce <= accountOf(head(), one.author).nonce;
        if (isSpent || one.sinceMs < oldestMs) drop(one);
      }
    },
    remove: (transactions) => {
      for (const transaction of transactions) {
        const one = byId.get(toHex(transactionId(constants.networkId, transaction)));
        if (one) drop(one);
      }
    },
    has: (id) => byId.has(toHex(id)),
    newestNonce: (nodeId) =>
      byAuthor.get(nodeId)?.at(-1)?.transaction.nonce ?? accountOf(head(), nodeId).nonce,
    size: () => ({ transactions: byId.size, bytes: bytesHeld }),
  };
}
