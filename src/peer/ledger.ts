/**
 * The ledger as one node keeps it: the state in memory, blocks and rows in a store, transactions that wait. Decided
 * blocks go in one after another; what to propose, who is asked to vote and how transactions travel is not known here.
 */

import { genesisHash } from '../consensus/block.ts';
import type { EpochStart, NextEpoch, Position } from '../consensus/epoch-types.ts';
import type { KeyPair } from '../identity/keys.ts';
import { type AppliedBlock, apply } from '../ledger/apply.ts';
import { decodeBlock, type LedgerBlock } from '../ledger/block.ts';
import type { Change } from '../ledger/draft.ts';
import { genesisState } from '../ledger/genesis.ts';
import { votersOf } from '../ledger/members.ts';
import { createMempool, type Mempool } from '../ledger/mempool.ts';
import { chainOf } from '../ledger/money.ts';
import type { LedgerConstants, TransactionRule } from '../ledger/rules.ts';
import { commit, createState, type LedgerState } from '../ledger/state.ts';
import type { LedgerHead, LedgerStore } from '../ledger/store.ts';
import { tableNames } from '../ledger/tables.ts';
import {
  encodeTransaction,
  rememberingVerifier,
  signTransaction,
  type Transaction,
  type VerifySignature,
} from '../ledger/transaction.ts';
import { cutStages } from '../model/stage-cut.ts';
import { assert } from '../std/assert.ts';
import { equalBytes } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import type { NetworkManifest } from './network.ts';

export interface TakenBlock extends AppliedBlock {
  readonly block: LedgerBlock;
}

export interface LedgerKeeper {
  readonly constants: LedgerConstants;
  readonly store: LedgerStore;
  readonly mempool: Mempool;
  readonly verify: VerifySignature;
  /** After the newest block; changed in place by the next one. */
  state(): LedgerState;
  head(): LedgerHead;
  /** Where the newest block stands in consensus; undefined before the first. */
  applied(): Position | undefined;
  /** What begins the epoch that the state is in. Only for the network's first epoch. */
  firstEpoch(): EpochStart;
  /** What follows an epoch whose last block was the newest. */
  nextEpoch(epoch: number): NextEpoch | undefined;
  /**
   * Applies and keeps a decided payload. One that does not apply was decided by liars: it throws, as it does when the store
   * does not keep it; then everything is as it was before.
   */
  take(payload: Uint8Array, decided: DecidedPlace): Promise<TakenBlock>;
  /** A signed transaction of this node, valid after those that already wait. */
  sign<Body>(rule: TransactionRule<Body>, body: Body, key: KeyPair): Uint8Array;
}

export interface DecidedPlace extends Position {
  readonly certificate: Uint8Array | null;
}

/** Signatures remembered between gossip and block. */
const rememberedMax = 16_384;

export interface LedgerOptions {
  readonly network: NetworkManifest;
  readonly store: LedgerStore;
  readonly clock: Clock;
  /** What a transaction must be beside valid on the state, so that voters take the block that holds it. */
  readonly accepts?: (transaction: Transaction) => Outcome<unknown>;
}

/** Opens what the store holds, or begins with the genesis. Throws CodedError `ledger-damaged`, `ledger-foreign`. */
export async function openLedger({ network, store, clock, accepts }: LedgerOptions): Promise<LedgerKeeper> {
  const constants = constantsOf(network);
  const genesis = genesisState(network.members, constants);
  const firstMembers = votersOf(genesis);
  let head = await store.head();
  if (!head) {
    head = { number: 0, hash: new Uint8Array(32), height: 0, epoch: 0, stateRoot: genesis.root() };
    await store.install(head, rowsOf(genesis));
  }
  const state = head.number === 0 ? genesis : await loadState(store, head);
  const verify = rememberingVerifier(rememberedMax);
  const mempool = createMempool({ head: () => state, constants, clock, verify, ...(accepts && { accepts }) });
  let newest: LedgerHead = head;

  return {
    constants,
    store,
    mempool,
    verify,
    state: () => state,
    head: () => newest,
    applied: () => (newest.number > 0 ? { epoch: newest.epoch, height: newest.height } : undefined),
    firstEpoch: () => ({ epoch: 0, members: firstMembers, root: genesisHash }),
    nextEpoch: (epoch) => {
      const chain = chainOf(state);
      if (chain.epoch !== epoch + 1 || newest.epoch !== epoch) return undefined;
      return { members: votersOf(state), stateRoot: state.root(), timeMs: chain.epochStartMs };
    },
    take: async (payload, place) => {
      const block = decodeBlock(payload);
      assert(block.ok, 'a decided block that cannot be read');
      const applied = apply(state, block.value, constants, verify);
      if (!applied.ok)
        throw new CodedError(
          'ledger-diverged',
          `decided block ${block.value.number}: ${applied.code} ${applied.detail}`,
        );
      const { hash, changes, receipts } = applied.value;
      const before = newest;
      const undo = changes.map(({ table, key }): Change => ({ table, key, row: state.get(table, key) }));
      commit(state, changes);
      const { number, timeMs, proposer } = block.value;
      const { epoch, height, certificate } = place;
      newest = { number, hash, height, epoch, stateRoot: state.root() };
      try {
        await store.append(
          { ...newest, timeMs, proposer, payload, certificate, transactions: receipts },
          changes,
        );
      } catch (error) {
        // What is not kept is not applied: memory says what a restart would find.
        commit(state, undo);
        newest = before;
        throw error;
      }
      mempool.prune();
      return { ...applied.value, block: block.value };
    },
    sign: (rule, body, key) => {
      const nonce = Math.max(mempool.newestNonce(key.nodeId) + 1, Math.floor(clock.nowMs()));
      return encodeTransaction(signTransaction(network.networkId, rule, { body, nonce }, key));
    },
  };
}

/** What every node of the network computes with. */
export function constantsOf(network: NetworkManifest): LedgerConstants {
  const { networkId, ledger, model, training } = network;
  const stages = cutStages(model, training.stages);
  return {
    networkId,
    policy: ledger,
    innerSteps: training.innerSteps,
    microbatches: training.microbatches,
    tokensPerBatch: training.batch * training.sequence,
    layers: model.layers,
    stageLayers: stages.map(({ firstLayer, endLayer }) => endLayer - firstLayer),
  };
}

function* rowsOf(state: LedgerState): Iterable<Change> {
  for (const table of tableNames)
    for (const key of state.keys(table)) yield { table, key, row: state.get(table, key) };
}

async function loadState(store: LedgerStore, head: LedgerHead): Promise<LedgerState> {
  const state = createState();
  for await (const rows of store.rows()) commit(state, rows);
  if (!equalBytes(state.root(), head.stateRoot))
    throw new CodedError('ledger-damaged', `the rows kept are not those after block ${head.number}`);
  return state;
}
