/**
 * The ledger as JSON documents: amounts are decimal strings of micro-NEURO, bytes are hex, times are milliseconds since
 * the Unix epoch. Shared with those who read them, the wallet first.
 */

import { nodeIdOf } from '../identity/keys.ts';
import { released } from '../ledger/bonding.ts';
import { rulesByKind } from '../ledger/kinds.ts';
import { accountOf, chainOf } from '../ledger/money.ts';
import type { LedgerPort } from '../ledger/port.ts';
import { encodeRow } from '../ledger/row-codec.ts';
import type { LedgerState } from '../ledger/state.ts';
import type { BlockSummary, LedgerHead } from '../ledger/store.ts';
import type { Amount } from '../ledger/tables.ts';
import type { Transaction } from '../ledger/transaction.ts';
import { toHex } from '../std/bytes.ts';

export type Json = null | boolean | number | string | readonly Json[] | { readonly [name: string]: Json };

/** Integers beyond 2^53, and all amounts, as decimal strings; bytes as hex. */
export function jsonOf(value: unknown): Json {
  if (typeof value === 'bigint') return value.toString();
  if (value instanceof Uint8Array) return toHex(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (typeof value === 'object' && value !== null)
    return Object.fromEntries(Object.entries(value).map(([name, each]) => [name, jsonOf(each)]));
  if (typeof value === 'number' && !Number.isFinite(value)) return null;
  return value === undefined ? null : (value as Json);
}

export interface HeadDocument {
  readonly networkId: string;
  readonly number: number;
  readonly hash: string;
  /** Height at which consensus decided the block. */
  readonly height: number;
  readonly epoch: number;
  readonly stateRoot: string;
  readonly timeMs: number;
}

export function headDocument(port: LedgerPort): HeadDocument {
  const { number, hash, height, stateRoot } = port.head();
  const { timeMs, epoch } = chainOf(port.state());
  return {
    networkId: toHex(port.constants.networkId),
    ...{ number, hash: toHex(hash), height, epoch, stateRoot: toHex(stateRoot), timeMs },
  };
}

export interface BlockDocument {
  readonly number: number;
  readonly hash: string;
  readonly height: number;
  readonly epoch: number;
  /** After the block. */
  readonly stateRoot: string;
  readonly timeMs: number;
  readonly proposer: string;
  /** How many. */
  readonly transactions: number;
  readonly payloadBytes: number;
}

export function blockDocument(block: BlockSummary): BlockDocument {
  const { number, height, epoch, timeMs, proposer, transactions, payloadBytes } = block;
  const [hash, stateRoot] = [toHex(block.hash), toHex(block.stateRoot)];
  return { number, hash, height, epoch, stateRoot, timeMs, proposer, transactions, payloadBytes };
}

export interface TransactionDocument {
  readonly id: string;
  readonly kind: string;
  /** Node id; null for what the block's proposer put in. */
  readonly author: string | null;
  readonly nonce: number;
  /** As the kind's rule reads it; see `src/ledger/transactions/`. */
  readonly body: Json;
  readonly block: number;
  /** Within the block, from 0. */
  readonly index: number;
  readonly timeMs: number;
}

export function transactionDocument(
  { kind, nonce, body, publicKey }: Transaction,
  place: {
    readonly id: Uint8Array;
    readonly number: number;
    readonly index: number;
    readonly timeMs: number;
  },
): TransactionDocument {
  const parsed = rulesByKind.get(kind)?.parse(body);
  const author = publicKey && nodeIdOf(publicKey);
  const { number: block, index, timeMs } = place;
  const content = jsonOf(parsed?.ok ? parsed.value : body);
  return { id: toHex(place.id), kind, author, nonce, body: content, block, index, timeMs };
}

export interface AccountDocument {
  readonly id: string;
  /** What a transaction made now could spend: stake that is free by now is in it. */
  readonly balance: string;
  readonly stake: string;
  /** Stake on its way back, and when it is free. */
  readonly unbonding: readonly { readonly amount: string; readonly freeMs: number }[];
  /** Rewards that are not paid out yet, those under audit included. */
  readonly vesting: string;
  /** Locked rewards of the first proofs. */
  readonly bond: string;
  readonly nonce: number;
  /** What the next transaction's nonce must exceed: those that wait for a block count, too. */
  readonly newestNonce: number;
  /** Training proofs accepted. */
  readonly proofs: number;
  readonly convicted: boolean;
  /** The block after which this holds. */
  readonly block: number;
  readonly stateRoot: string;
  readonly proof?: AccountProofDocument;
}

/** For `verifyRowProof` of `src/ledger/state-tree.ts`, table `account`. */
export interface AccountProofDocument {
  /** Canonical bytes of the account's row, in hex; null when there is none. */
  readonly row: string | null;
  readonly siblings: readonly string[];
  readonly leaf: { readonly path: string; readonly row: string } | null;
}

export function accountDocument(port: LedgerPort, id: string, withProof: boolean): AccountDocument {
  const state = port.state();
  const head = port.head();
  const { timeMs } = chainOf(state);
  const account = released(accountOf(state, id), timeMs);
  const prover = state.get('prover', id);
  const vesting = prover?.vesting.reduce((sum, [, amount]) => sum + amount, 0n) ?? 0n;
  return {
    id,
    balance: String(account.balance),
    stake: String(account.stake),
    unbonding: account.unbonding.map(([amount, freeMs]) => ({ amount: String(amount), freeMs })),
    vesting: String(vesting + underAudit(state, id)),
    bond: String(prover?.bond ?? 0n),
    nonce: account.nonce,
    newestNonce: Math.max(account.nonce, port.mempool.newestNonce(id)),
    proofs: prover?.proofs ?? 0,
    convicted: prover?.convicted ?? false,
    block: head.number,
    stateRoot: toHex(head.stateRoot),
    ...(withProof && { proof: accountProof(state, id) }),
  };
}

function underAudit(state: LedgerState, prover: string): Amount {
  let sum = 0n;
  for (const key of state.keys('duty')) {
    const duty = state.get('duty', key)!;
    if (duty.prover === prover) sum += duty.reward;
  }
  return sum;
}

function accountProof(state: LedgerState, id: string): AccountProofDocument {
  const row = state.get('account', id);
  const { siblings, leaf } = state.prove('account', id);
  return {
    row: row ? toHex(encodeRow<'account'>(row)) : null,
    siblings: siblings.map(toHex),
    leaf: leaf && { path: toHex(leaf.path), row: toHex(leaf.row) },
  };
}

export interface SupplyDocument {
  readonly minted: string;
  readonly burned: string;
  /** minted − burned. */
  readonly supply: string;
  /** Stake of registered members. */
  readonly bonded: string;
  readonly block: number;
}

export function supplyDocument(state: LedgerState, head: LedgerHead): SupplyDocument {
  const { minted, burned, bonded } = chainOf(state);
  const supply = minted - burned;
  return {
    ...{ minted: String(minted), burned: String(burned), supply: String(supply) },
    bonded: String(bonded),
    block: head.number,
  };
}

export interface ValidatorDocument {
  readonly id: string;
  readonly publicKey: string;
  /** In this epoch; null for one that does not vote in it. */
  readonly weight: number | null;
  readonly founderWeight: number;
  readonly stake: string;
  /** Counted from 0. */
  readonly stage: number;
  readonly registered: boolean;
  readonly convicted: boolean;
  /** Number of its newest block, or of the block before it began to vote. */
  readonly proposedAt: number;
  /** Block that ended the epoch in which it was found silent; null while it was not. */
  readonly jailedAt: number | null;
}

export function validatorDocument(state: LedgerState, id: string): ValidatorDocument {
  const { publicKey, founderWeight, stage, registered, convicted, ...row } = state.get('member', id)!;
  const weight = chainOf(state).voters.find(([voter]) => voter === id)?.[1] ?? null;
  const stake = String(accountOf(state, id).stake);
  const spoke = { proposedAt: row.proposedAt, jailedAt: row.jailedAt > 0 ? row.jailedAt : null };
  const member = { publicKey: toHex(publicKey), weight, founderWeight, stake, stage, registered, convicted };
  return { id, ...member, ...spoke };
}
