/**
 * For tests of the ledger: a small network's constants, keys with names, a state that begins at genesis, and blocks made
 * and applied one after another as honest members would.
 */
import assert from 'node:assert/strict';
import { type KeyPair, keyPairFrom } from '../src/identity/keys.ts';
import { type AppliedBlock, apply } from '../src/ledger/apply.ts';
import { type OwnBeacon, ownBeacon } from '../src/ledger/beacon.ts';
import type { LedgerBlock } from '../src/ledger/block.ts';
import { genesisState } from '../src/ledger/genesis.ts';
import { accountOf, chainOf, credit, mint, moneyInAll } from '../src/ledger/money.ts';
import { defaultLedgerPolicy, type LedgerPolicy } from '../src/ledger/policy.ts';
import type { BlockContext, LedgerConstants, TransactionRule } from '../src/ledger/rules.ts';
import { createSignatureMemory } from '../src/ledger/signature-memory.ts';
import { commit, createDraft, type LedgerState } from '../src/ledger/state.ts';
import { signTransaction, type Transaction } from '../src/ledger/transaction.ts';
import { utf8 } from '../src/std/bytes.ts';
import { sha256 } from '../src/std/hash.ts';
import type { Outcome } from '../src/std/outcome.ts';

/** Every key made here, by node id: whoever comes to vote can propose. */
const keysMade = new Map<string, KeyPair>();

/** The same key for the same name, in every run. */
export function namedKey(name: string): KeyPair {
  const key = keyPairFrom(sha256(utf8(`key of ${name}`)));
  keysMade.set(key.nodeId, key);
  return key;
}

export function ledgerConstants(policy: Partial<LedgerPolicy> = {}): LedgerConstants {
  return {
    networkId: sha256(utf8('a network of tests')),
    policy: { ...defaultLedgerPolicy, auditMsMin: 1, ...policy },
    innerSteps: 20,
    microbatches: 1,
    tokensPerBatch: 1024,
    layers: 4,
    stageLayers: [4],
  };
}

/** Whether a voter proposes when it is its turn; the next one does otherwise. */
type Speaks = (nodeId: string) => boolean;

export interface LedgerWorld {
  readonly constants: LedgerConstants;
  readonly state: LedgerState;
  /** Founders' keys, in the manifest's order; all of weight 1. */
  readonly founders: readonly KeyPair[];
  /** Of the block that comes next. */
  context(): BlockContext;
  /** Signed with the next free nonce. */
  sign<Body>(rule: TransactionRule<Body>, body: Body, key: KeyPair): Transaction;
  /** The next block, `afterMs` after the last, by the founder whose turn it is. */
  block(transactions: readonly Transaction[], afterMs?: number, speaks?: Speaks): LedgerBlock;
  /** Applies and commits; a rejection leaves everything as it was. */
  take(block: LedgerBlock): Outcome<AppliedBlock>;
  /** `take(block(…))` that must succeed. */
  advance(transactions?: readonly Transaction[], afterMs?: number, speaks?: Speaks): AppliedBlock;
  /** Money out of nothing, counted as minted: tests need some to begin with. */
  endow(nodeId: string, amount: bigint): void;
  balance(nodeId: string): bigint;
  /** Reads every row: throws unless minted − burned is what is there, and the bonded stake what members have. */
  checkSupply(): void;
}

/** Making a chain takes some milliseconds, and all worlds have the same founders. */
const beacons = new Map<string, OwnBeacon>();
const { verify } = createSignatureMemory({ ...ledgerConstants(), rememberedMax: 10_000 });

/** Money out of nothing, counted as minted. */
export function endowState(state: LedgerState, nodeId: string, amount: bigint): void {
  const draft = createDraft(state);
  credit(draft, nodeId, mint(draft, amount));
  commit(state, draft.changes());
}

export const worldStartMs = 1_800_000_000_000;

export function ledgerWorld(
  options: {
    readonly founders?: number;
    readonly policy?: Partial<LedgerPolicy>;
    readonly stages?: number;
  } = {},
): LedgerWorld {
  const { stages = 1 } = options;
  const base = ledgerConstants(options.policy);
  const constants = { ...base, stageLayers: Array.from({ length: stages }, () => base.layers / stages) };
  const founders = Array.from({ length: options.founders ?? 4 }, (_, i) => namedKey(`founder ${i}`));
  const state = genesisState(
    founders.map(({ publicKey }, i) => ({ publicKey, weight: 1, stage: i % stages })),
    constants,
  );
  let nonce = 0;
  const world: LedgerWorld = {
    constants,
    state,
    founders,
    context: () => nextContext(state, constants),
    sign: (rule, body, key) => signTransaction(constants.networkId, rule, { body, nonce: ++nonce }, key),
    block: (transactions, afterMs = 1_000, speaks) =>
      nextBlock(state, constants, { transactions, afterMs, proposer: proposerOf(state, speaks) }),
    take: (block) => {
      const applied = apply(state, block, constants, verify);
      if (applied.ok) commit(state, applied.value.changes);
      return applied;
    },
    advance: (transactions = [], afterMs, speaks) => {
      const applied = world.take(world.block(transactions, afterMs, speaks));
      assert.ok(applied.ok, applied.ok ? '' : `${applied.code} ${applied.detail}`);
      return applied.value;
    },
    endow: (nodeId, amount) => endowState(state, nodeId, amount),
    balance: (nodeId) => accountOf(state, nodeId).balance,
    checkSupply: () => checkSupply(state),
  };
  return world;
}

/** Whose turn it is of the voters whose keys are known here and who speak. */
function proposerOf(state: LedgerState, speaks: Speaks = () => true): KeyPair {
  const { voters, number } = chainOf(state);
  const able = voters.flatMap(([nodeId]) => (speaks(nodeId) && keysMade.get(nodeId)) || []);
  return able[number % able.length]!;
}

function nextContext(state: LedgerState, constants: LedgerConstants): BlockContext {
  const { number, timeMs } = chainOf(state);
  return {
    constants,
    number: number + 1,
    timeMs: Math.max(timeMs, worldStartMs) + 1_000,
    proposer: proposerOf(state).nodeId,
  };
}

interface Proposed {
  readonly transactions: readonly Transaction[];
  readonly afterMs: number;
  readonly proposer: KeyPair;
}

function nextBlock(
  state: LedgerState,
  { networkId }: LedgerConstants,
  { transactions, afterMs, proposer }: Proposed,
): LedgerBlock {
  const { number, hash, timeMs } = chainOf(state);
  const beacon = beacons.get(proposer.nodeId) ?? ownBeacon(proposer.secretKey, networkId);
  beacons.set(proposer.nodeId, beacon);
  return {
    number: number + 1,
    parentHash: hash,
    parentStateRoot: state.root(),
    timeMs: Math.max(timeMs, worldStartMs) + afterMs,
    proposer: proposer.nodeId,
    ...beacon.next(state.get('member', proposer.nodeId)!, number + 1)!,
    transactions,
  };
}

function checkSupply(state: LedgerState): void {
  const { minted, burned, bonded } = chainOf(state);
  assert.equal(moneyInAll(state), minted - burned);
  const registered = state.keys('member').filter((key) => state.get('member', key)!.registered);
  const stakes = registered.reduce((sum, key) => sum + accountOf(state, key).stake, 0n);
  assert.equal(bonded, stakes);
}
