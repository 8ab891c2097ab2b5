/**
 * The escrows that a node pays from or is paid from, as final blocks change them, and what came of them since this process
 * began. Reads the ledger and sends nothing.
 */
import type { Receipt } from '../ledger/apply.ts';
import type { EscrowRow } from '../ledger/tables.ts';
import type { Transaction } from '../ledger/transaction.ts';
import { type Claim, claim } from '../ledger/transactions/claim.ts';
import { escrow } from '../ledger/transactions/escrow.ts';
import { refund } from '../ledger/transactions/refund.ts';
import { must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import type { LedgerNode } from './ledger-node.ts';

export interface OwnEscrows {
  /** Those that stand on the ledger now, by id. */
  all(): ReadonlyMap<string, EscrowRow>;
  get(id: string): EscrowRow | undefined;
  /** Micro-NEURO claimed from this node's escrows, and claimed by this node, the burn included. */
  totals(): { readonly paid: bigint; readonly earned: bigint };
  close(): void;
}

export function watchOwnEscrows(
  ledger: Pick<LedgerNode, 'state' | 'head' | 'onBlock'>,
  nodeId: string,
  onBlock: () => void = () => {},
): OwnEscrows {
  const known = new Map<string, EscrowRow>();
  const totals = { paid: 0n, earned: 0n };
  let number = 0;
  const readAll = () => {
    known.clear();
    const state = ledger.state();
    for (const id of state.keys('escrow')) {
      const row = must(state.get('escrow', id), 'a listed row');
      if (isOwn(row)) known.set(id, row);
    }
    number = ledger.head().number;
  };
  const isOwn = ({ payer, payee }: EscrowRow) => payer === nodeId || payee === nodeId;
  const noteClaim = ({ escrow: id, amount }: Claim) => {
    const row = known.get(id);
    if (!row) return;
    if (row.payer === nodeId) totals.paid += amount - row.claimed;
    if (row.payee === nodeId) totals.earned += amount - row.claimed;
    if (amount === row.amount) known.delete(id);
    else known.set(id, { ...row, claimed: amount });
  };
  const note = ({ kind, body }: Transaction, { id, author }: Receipt) => {
    if (kind === escrow.kind && author !== null) {
      const opened = escrow.parse(body);
      const row = opened.ok ? { ...opened.value, payer: author, claimed: 0n } : undefined;
      if (row && isOwn(row)) known.set(toHex(id), row);
    } else if (kind === claim.kind) {
      const claimed = claim.parse(body);
      if (claimed.ok) noteClaim(claimed.value);
    } else if (kind === refund.kind) {
      const returned = refund.parse(body);
      if (returned.ok) known.delete(returned.value.escrow);
    }
  };
  readAll();
  const stop = ledger.onBlock(({ block, receipts }) => {
    // After a step over blocks that were never seen here, what stands is all there is to know.
    if (block.number !== number + 1) readAll();
    else {
      number = block.number;
      for (const [index, transaction] of block.transactions.entries()) note(transaction, receipts[index]!);
    }
    onBlock();
  });
  return {
    all: () => known,
    get: (id) => known.get(id),
    totals: () => ({ ...totals }),
    close: stop,
  };
}
