/**
 * For tests of the ledger inside a node: a small network's manifest, keepers of its ledger, money out of nothing, round
 * lists, and blocks as the members would propose them. No consensus and no training.
 */
import assert from 'node:assert/strict';
import type { KeyPair } from '../src/identity/keys.ts';
import { announce, announcementFields } from '../src/ledger/announcement.ts';
import { ownBeacon } from '../src/ledger/beacon.ts';
import type { LedgerBlock } from '../src/ledger/block.ts';
import type { Change } from '../src/ledger/draft.ts';
import type { LedgerPolicy } from '../src/ledger/policy.ts';
import { assembleBlock } from '../src/ledger/propose.ts';
import { tableNames } from '../src/ledger/tables.ts';
import type { Transaction } from '../src/ledger/transaction.ts';
import type { LedgerKeeper, TakenBlock } from '../src/peer/ledger.ts';
import { createNetworkDocument, type NetworkManifest, requireNetwork } from '../src/peer/network.ts';
import { defaultOuter } from '../src/peer/policy.ts';
import { utf8 } from '../src/std/bytes.ts';
import { type Canonical, decodeCanonical, encodeCanonical } from '../src/std/codec.ts';
import { sha256, sha256Hex } from '../src/std/hash.ts';
import { endowState } from './ledger-world.ts';
import { tinyConfig, tinySettings } from './tiny-replica.ts';

/** Of the smallest model; all keys are members of weight 1. */
export function tinyNetwork(
  keys: readonly KeyPair[],
  ledger: Partial<LedgerPolicy> = {},
  createdMs?: number,
): NetworkManifest {
  const { beta1, beta2, epsilon, weightDecay, clip } = tinySettings.inner;
  const { batch, sequence, seed } = tinySettings;
  const rates = { peakLearningRate: 1e-2, warmupSteps: 0, totalSteps: 1000, floorRatio: 1 };
  const inner = { beta1, beta2, epsilon, weightDecay, clip };
  const document = createNetworkDocument(
    {
      name: 'ledger',
      ...(createdMs !== undefined && { createdMs }),
      seed,
      model: tinyConfig,
      dataset: '0'.repeat(64),
      training: { innerSteps: 3, batch, sequence, ...rates, ...inner },
      outer: defaultOuter('int8', 'default'),
      ledger,
      members: keys.map(({ publicKey }) => ({ publicKey, weight: 1 })),
    },
    keys[0]!,
  );
  return requireNetwork(document, 'ledger');
}

/** A decided list in which the keys contributed. */
export function roundList(networkId: Uint8Array, round: number, keys: readonly KeyPair[]): Uint8Array {
  const entries = keys.map((key) => {
    const blobHash = sha256Hex(utf8(`blob of ${key.nodeId} in round ${round}`));
    const base = sha256Hex(utf8(`base of round ${round}`));
    const body = { round, stage: 0, base, blobHash, blobBytes: 100, batches: 3 };
    return announcementFields(announce(networkId, body, key));
  });
  return encodeCanonical([round, entries]);
}

/** The transaction that a list becomes in a block. */
export function listTransaction(list: Uint8Array): Transaction {
  const decoded = decodeCanonical(list, list.length);
  assert.ok(decoded.ok);
  return { kind: 'round', body: decoded.value as Canonical, nonce: 0, publicKey: null, signature: null };
}

/** Money out of nothing, counted as minted, in memory and in the store: before the first block. */
export async function endow(ledger: LedgerKeeper, nodeId: string, amount: bigint): Promise<void> {
  const state = ledger.state();
  endowState(state, nodeId, amount);
  const rows = tableNames.flatMap((table) =>
    state.keys(table).map((key): Change => ({ table, key, row: state.get(table, key) })),
  );
  await ledger.store.install({ ...ledger.head(), stateRoot: state.root() }, rows);
}

interface BlockParts {
  readonly proposer: KeyPair;
  readonly nowMs: number;
  readonly own?: readonly Transaction[];
  readonly waiting?: readonly Transaction[];
}

/** The block that comes next. */
export function blockOn(ledger: LedgerKeeper, { proposer, nowMs, own = [], waiting = [] }: BlockParts) {
  const { constants, verify } = ledger;
  const state = ledger.state();
  const member = state.get('member', proposer.nodeId)!;
  const beacon = ownBeacon(proposer.secretKey, constants.networkId).next(member, ledger.head().number + 1)!;
  const parts = { state, constants, proposer: proposer.nodeId, nowMs, own, waiting, verify, ...beacon };
  const assembled = assembleBlock(parts);
  assert.ok(assembled.ok, assembled.ok ? '' : assembled.code);
  assert.deepEqual(assembled.value.refused, []);
  return assembled.value;
}

/** Decides it: heights are twice the number, as if dummies lay between. */
export async function takeNext(
  ledger: LedgerKeeper,
  parts: BlockParts,
  epoch = 0,
): Promise<TakenBlock & { readonly block: LedgerBlock }> {
  const { payload, block } = blockOn(ledger, parts);
  return ledger.take(payload, { epoch, height: 2 * block.number, certificate: sha256(payload) });
}
