/**
 * What a node tells of a final block, and of where it stands on the ledger: root and supply, what this node has, and who
 * was punished.
 */
import { checkpointOf, formatCheckpoint } from '../consensus/checkpoint.ts';
import { accountOf, chainOf } from '../ledger/money.ts';
import type { LedgerState } from '../ledger/state.ts';
import { must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import type { NodeEvent } from './events.ts';
import type { LedgerKeeper, TakenBlock } from './ledger.ts';
import type { LedgerNode } from './ledger-node.ts';

/** Newest punishments in one event. */
const slashedMax = 64;

export function blockEvent(
  ledger: LedgerKeeper,
  nodeId: string,
  { block }: TakenBlock,
): NodeEvent & { type: 'block' } {
  const state = ledger.state();
  const slashed = state
    .keys('slash')
    .slice(-slashedMax)
    .map((key) => {
      const { node, reason, amount } = must(state.get('slash', key), 'a listed row');
      const proofs = state.get('prover', node)?.proofs ?? 0;
      return { node, reason, height: Number(key.split('/')[0]), amount: String(amount), proofs };
    });
  return {
    type: 'block',
    number: block.number,
    transactions: block.transactions.length,
    stateRoot: toHex(state.root()),
    ...moneyOf(state, nodeId),
    slashed,
  };
}

/** Where a node stands on the ledger. Amounts are decimal micro-NEURO. */
export interface LedgerStatus {
  /** Of the newest block; 0 before the first. */
  readonly number: number;
  /** After it. */
  readonly stateRoot: string;
  readonly epoch: number;
  /** Its beginning, in one line: newcomers who trust this node may begin there. */
  readonly checkpoint: string;
  /** Whether this node votes in this epoch. */
  readonly votes: boolean;
  /** Who votes in this epoch. */
  readonly members: number;
  /** Of those, how many may fail in any way, whoever they are, while blocks are still decided. */
  readonly toleratedFailures: number;
  /** Transactions that wait for a block. */
  readonly waiting: number;
  readonly supply: string;
  readonly balance: string;
  readonly stake: string;
  /** Earned and not paid out yet. */
  readonly pending: string;
  /** Challenges about held weights that this node answered so far. */
  readonly answered: number;
}

export function ledgerStatus(
  ledger: LedgerKeeper & Pick<LedgerNode, 'consensus'>,
  nodeId: string,
): LedgerStatus {
  const state = ledger.state();
  const { epoch, member, members, toleratedFailures } = ledger.consensus.status();
  const checkpoint = formatCheckpoint(checkpointOf(ledger.consensus.start()));
  return {
    number: ledger.head().number,
    stateRoot: toHex(state.root()),
    epoch,
    checkpoint,
    votes: member,
    members,
    toleratedFailures,
    waiting: ledger.mempool.size().transactions,
    ...moneyOf(state, nodeId),
  };
}

function moneyOf(state: LedgerState, nodeId: string) {
  const { minted, burned } = chainOf(state);
  const { balance, stake } = accountOf(state, nodeId);
  const prover = state.get('prover', nodeId);
  const vesting = prover?.vesting.reduce((sum, [, amount]) => sum + amount, 0n) ?? 0n;
  const audited = state
    .keys('duty')
    .map((key) => must(state.get('duty', key), 'a listed row'))
    .filter((duty) => duty.prover === nodeId)
    .reduce((sum, { reward }) => sum + reward, 0n);
  return {
    supply: String(minted - burned),
    balance: String(balance),
    stake: String(stake),
    pending: String(audited + vesting + (prover?.bond ?? 0n)),
    answered: prover?.answered ?? 0,
  };
}
