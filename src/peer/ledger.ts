/**
 * The ledger as one node keeps it: the state in memory, blocks and rows in a store, transactions that wait. Decided
 * blocks go in one after another; what to propose, who is asked to vote and how transactions travel is not known here.
 */

import { genesisHash } from '../consensus/block.ts';
import type { EpochStart, NextEpoch, Position } from '../consensus/epoch-types.ts';
import type { KeyPair, VerifyMany } from '../identity/keys.ts';
import { type AppliedBlock, apply } from '../ledger/apply.ts';
import { decodeBlock, type LedgerBlock } from '../ledger/block.ts';
import type { Change } from '../ledger/draft.ts';
import { genesisState } from '../ledger/genesis.ts';
import { votersOf } from '../ledger/members.ts';
import { createMempool, type Mempool } from '../ledger/mempool.ts';
import { chainOf } from '../ledger/money.ts';
import type { LedgerPolicy } from '../ledger/policy.ts';
import type { LedgerConstants, TransactionRule } from '../ledger/rules.ts';
import { createSignatureMemory } from '../ledger/signature-memory.ts';
import { commit, createState, type LedgerState } from '../ledger/state.ts';
import type { LedgerHead, LedgerStore } from '../ledger/store.ts';
import { tableNames } from '../ledger/tables.ts';
import {
  encodeTransaction,
  signTransaction,
  type Transaction,
  type VerifySignature,
} from '../ledger/transaction.ts';
import { cutStages } from '../model/stage-cut.ts';
import { assert } from '../std/assert.ts';
import { equalBytes } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { inTurn } from '../std/in-turn.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import { epochBegunBy } from './ledger-sync-serve.ts';
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
  /** Where the newest block stands in consensus; height 0 at the beginning of an epoch. */
  applied(): Position;
  /** What begins the network's first epoch. */
  firstEpoch(): EpochStart;
  /** What follows an epoch whose last block was the newest. */
  nextEpoch(epoch: number): NextEpoch | undefined;
  /**
   * Applies and keeps a decided payload. One that does not apply was decided by liars: it throws, as it does when the store
   * does not keep it; then everything is as it was before.
   */
  take(payload: Uint8Array, decided: DecidedPlace): Promise<TakenBlock>;
  /** These will be taken: their signatures are verified meanwhile, if somebody else can. */
  prepare(payloads: readonly Uint8Array[]): void;
  /** Puts a verified state in the place of all that is here, on disk first. */
  replace(head: LedgerHead, state: LedgerState): Promise<void>;
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
  /** Verifies what comes in whole blocks, as in catching up; here, one after another, unless given. */
  readonly verifyMany?: VerifyMany;
}

/** Opens what the store holds, or begins with the genesis. Throws CodedError `ledger-damaged`. */
export async function openLedger(options: LedgerOptions): Promise<LedgerKeeper> {
  const { network, store, clock, accepts, verifyMany } = options;
  const constants = constantsOf(network);
  const genesis = genesisState(network.members, constants);
  const firstMembers = votersOf(genesis);
  let head = await store.head();
  if (!head) {
    head = { number: 0, hash: new Uint8Array(32), height: 0, epoch: 0, stateRoot: genesis.root() };
    await store.install(head, rowsOf(genesis));
  }
  let state = head.number === 0 ? genesis : await loadState(store, head);
  const { verify, ahead } = createSignatureMemory({
    networkId: network.networkId,
    rememberedMax,
    ...(verifyMany && { verifyMany }),
  });
  const mempool = createMempool({ head: () => state, constants, clock, verify, ...(accepts && { accepts }) });
  let newest: LedgerHead = head;
  const turn = inTurn();
  const keepSnapshot = () => keepIfBegun(store, newest, state, constants.policy);
  keepSnapshot();

  return {
    constants,
    store,
    mempool,
    verify,
    state: () => state,
    head: () => newest,
    applied: () => ({ epoch: newest.epoch, height: newest.height }),
    firstEpoch: () => ({ epoch: 0, members: firstMembers, root: genesisHash }),
    nextEpoch: (epoch) => {
      const chain = chainOf(state);
      if (chain.epoch !== epoch + 1 || newest.epoch !== epoch) return undefined;
      return { members: votersOf(state), stateRoot: state.root(), timeMs: chain.epochStartMs };
    },
    take: (payload, place) =>
      turn(async () => {
        const decoded = decodeBlock(payload);
        assert(decoded.ok, 'a decided block that cannot be read');
        const verified = ahead(decoded.value.transactions);
        if (verified) await verified;
        const taken = takeBlock(state, decoded.value, constants, verify);
        const { hash, changes, receipts, block } = taken;
        const before = newest;
        const undo = changes.map(({ table, key }): Change => ({ table, key, row: state.get(table, key) }));
        commit(state, changes);
        const { number, timeMs, proposer } = block;
        const { epoch, height, certificate } = place;
        newest = { number, hash, height, epoch, stateRoot: state.root() };
        const kept = { ...newest, timeMs, proposer, payload, certificate, transactions: receipts };
        await store.append(kept, changes).catch((error) => {
          // What is not kept is not applied: memory says what a restart would find.
          commit(state, undo);
          newest = before;
          throw error;
        });
        keepSnapshot();
        mempool.prune();
        return taken;
      }),
    prepare: (payloads) => {
      for (const payload of verifyMany ? payloads : []) {
        const block = decodeBlock(payload);
        if (block.ok) void ahead(block.value.transactions);
      }
    },
    replace: (given, verified) =>
      turn(async () => {
        await store.install(given, rowsOf(verified));
        state = verified;
        newest = given;
        keepSnapshot();
        mempool.prune();
      }),
    sign: (rule, body, key) => {
      const nonce = Math.max(mempool.newestNonce(key.nodeId) + 1, Math.floor(clock.nowMs()));
      return encodeTransaction(signTransaction(network.networkId, rule, { body, nonce }, key));
    },
  };
}

/** The state of now, if an epoch begins with it: newcomers start there. Done again after a crash in between. */
function keepIfBegun(store: LedgerStore, head: LedgerHead, state: LedgerState, policy: LedgerPolicy): void {
  if (head.number === 0 || chainOf(state).epoch !== epochBegunBy(head)) return;
  const below = prunedBelow(head.number, policy);
  // In the store's order, so of this very state; what fails there, the next block will say.
  const kept = store.takeSnapshot();
  kept.then(() => (below > 1 ? store.prune(below) : undefined)).catch(() => undefined);
}

function takeBlock(
  state: LedgerState,
  block: LedgerBlock,
  constants: LedgerConstants,
  verify: VerifySignature,
): TakenBlock {
  const applied = apply(state, block, constants, verify);
  if (!applied.ok)
    throw new CodedError(
      'ledger-diverged',
      `decided block ${block.number}: ${applied.code} ${applied.detail}`,
    );
  return { ...applied.value, block };
}

/** Epochs whose blocks stay, and how often the time an auditor has fits into them: open audits look for their proofs. */
const epochsKept = 4;
const auditTermsKept = 16;

/**
 * Blocks with a lower number are forgotten once the state before block `number` + 1 is kept as a snapshot. Peers that are
 * behind are served from the journal of consensus and from snapshots, so nobody waits for these.
 */
export function prunedBelow(number: number, { epochBlocks, auditBlocks }: LedgerPolicy): number {
  return number + 1 - Math.max(epochsKept * epochBlocks, auditTermsKept * auditBlocks);
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
