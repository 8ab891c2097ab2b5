/**
 * Makes a block that `apply` accepts: the proposer's own transactions first, then of those that wait all that are valid
 * one after the other and fit. Knows no consensus and no clock.
 */
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { applyTransaction, beginBlock, contextOf } from './apply.ts';
import type { BeaconPart } from './beacon.ts';
import { blockBytesMax, encodeBlock, type LedgerBlock } from './block.ts';
import { chainOf } from './money.ts';
import type { LedgerConstants } from './rules.ts';
import { createDraft, type LedgerState } from './state.ts';
import { encodeTransaction, type Transaction, type VerifySignature } from './transaction.ts';

export interface BlockPlan extends BeaconPart {
  readonly state: LedgerState;
  readonly constants: LedgerConstants;
  /** Node id. */
  readonly proposer: string;
  /** The proposer's clock; the block's time is later than its parent's in any case. */
  readonly nowMs: number;
  /** Of origin `block`; one that is not valid is left out. */
  readonly own: readonly Transaction[];
  /** In the order in which they should be taken. */
  readonly waiting: readonly Transaction[];
  readonly verify: VerifySignature;
  /** Default: `blockBytesMax`. */
  readonly bytesMax?: number;
}

export interface AssembledBlock {
  readonly block: LedgerBlock;
  readonly payload: Uint8Array;
  /** Candidates that are not valid any more, with the code: to be removed from where they wait. */
  readonly refused: readonly { readonly transaction: Transaction; readonly code: string }[];
}

/** Codes of `beginBlock`: this node cannot propose now. */
export function assembleBlock(plan: BlockPlan): Outcome<AssembledBlock> {
  const { state, constants, proposer, own, waiting, verify, bytesMax = blockBytesMax } = plan;
  const { transactionsPerBlockMax } = constants.policy;
  const chain = chainOf(state);
  if (!chain.voters.some(([nodeId]) => nodeId === proposer)) return reject('not-a-voter', proposer);
  const empty: LedgerBlock = {
    number: chain.number + 1,
    parentHash: chain.hash,
    parentStateRoot: state.root(),
    timeMs: Math.max(plan.nowMs, chain.timeMs + 1),
    proposer,
    beaconPreimage: plan.beaconPreimage,
    beaconCommitment: plan.beaconCommitment,
    transactions: [],
  };
  const draft = createDraft(state);
  const begun = beginBlock(draft, empty);
  if (!begun.ok) return begun;
  const context = contextOf(empty, constants);
  const transactions: Transaction[] = [];
  const refused: { transaction: Transaction; code: string }[] = [];
  const kindsOfProposer = new Set<string>();
  // A list of up to 10,000 is three bytes longer than an empty one.
  let bytes = encodeBlock(empty).length + 4;
  for (const transaction of [...own, ...waiting]) {
    if (transactions.length >= transactionsPerBlockMax) break;
    const size = encodeTransaction(transaction).length;
    if (bytes + size > bytesMax) continue;
    if (transaction.publicKey === null) {
      if (kindsOfProposer.has(transaction.kind)) continue;
      kindsOfProposer.add(transaction.kind);
    }
    const done = applyTransaction(draft, transaction, context, verify);
    if (!done.ok) {
      refused.push({ transaction, code: done.code });
      continue;
    }
    bytes += size;
    transactions.push(transaction);
  }
  const block = { ...empty, transactions };
  return accept({ block, payload: encodeBlock(block), refused });
}
