/** What a node tells of a final block: the ledger's root and supply, what this node has, and who was punished. */
import { accountOf, chainOf } from '../ledger/money.ts';
import { must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import type { NodeEvent } from './events.ts';
import type { LedgerKeeper, TakenBlock } from './ledger.ts';

/** Newest punishments in one event. */
const slashedMax = 64;

export function blockEvent(
  ledger: LedgerKeeper,
  nodeId: string,
  { block }: TakenBlock,
): NodeEvent & { type: 'block' } {
  const state = ledger.state();
  const { minted, burned } = chainOf(state);
  const { balance, stake } = accountOf(state, nodeId);
  const prover = state.get('prover', nodeId);
  const vesting = prover?.vesting.reduce((sum, [, amount]) => sum + amount, 0n) ?? 0n;
  const audited = state
    .keys('duty')
    .map((key) => must(state.get('duty', key), 'a listed row'))
    .filter((duty) => duty.prover === nodeId)
    .reduce((sum, { reward }) => sum + reward, 0n);
  const slashed = state
    .keys('slash')
    .slice(-slashedMax)
    .map((key) => {
      const { node, reason } = must(state.get('slash', key), 'a listed row');
      return { node, reason, height: Number(key.split('/')[0]) };
    });
  return {
    type: 'block',
    number: block.number,
    transactions: block.transactions.length,
    stateRoot: toHex(state.root()),
    supply: String(minted - burned),
    balance: String(balance),
    stake: String(stake),
    pending: String(audited + vesting + (prover?.bond ?? 0n)),
    slashed,
  };
}
