/** Accounts and histories as people read them. Knows no node and no key. */
import type { Json } from '../api/ledger-documents.ts';
import { formatNeuro } from '../ledger/neuro.ts';
import type { Account, History } from './ledger-client.ts';

type Fields = Readonly<Record<string, Json>>;

export function balanceText(account: Account): string {
  const unbonding = account.unbonding.reduce((sum, { amount }) => sum + BigInt(amount), 0n);
  const first = account.unbonding[0];
  const free = first ? `, the first ${formatNeuro(BigInt(first.amount))} from ${time(first.freeMs)}` : '';
  const rows: (readonly [string, string])[] = [
    ['address', account.id],
    ['balance', `${formatNeuro(BigInt(account.balance))} NEURO`],
    ['stake', `${formatNeuro(BigInt(account.stake))} NEURO`],
    ['unbonding', `${formatNeuro(unbonding)} NEURO${free}`],
    ['vesting', `${formatNeuro(BigInt(account.vesting))} NEURO`],
    ['bond', `${formatNeuro(BigInt(account.bond))} NEURO, locked rewards of the first proofs`],
    ['proofs', `${account.proofs}${account.convicted ? ', CONVICTED: it earns nothing any more' : ''}`],
    ['as of', `block ${account.block}`],
  ];
  return rows.map(([name, value]) => `${name.padEnd(11)}${value}`).join('\n');
}

export function historyText(address: string, { transactions, next }: History): string {
  if (transactions.length === 0) return 'nothing yet';
  const lines = transactions.map(({ block, timeMs, kind, body, author, id }) => {
    const fields = typeof body === 'object' && body !== null && !Array.isArray(body) ? body : {};
    const amount =
      typeof fields.amount === 'string' && /^\d+$/.test(fields.amount) ? fields.amount : undefined;
    const moved = amount === undefined ? '' : formatNeuro(BigInt(amount));
    const isMine = author === address;
    const other = otherSide(kind, fields, author, isMine);
    const sign = kind === 'transfer' && moved !== '' ? (isMine ? '-' : '+') : '';
    return [
      String(block).padStart(8),
      time(timeMs),
      printable(kind).padEnd(12),
      `${sign}${moved}`.padStart(20),
      other.padEnd(22),
      short(id),
    ].join('  ');
  });
  return [...lines, ...(next === null ? [] : [`more: --before ${printable(next)}`])].join('\n');
}

/** Whom it goes to or comes from; claims and refunds name their escrow, and a claim's amount is what is owed in all. */
function otherSide(kind: string, fields: Fields, author: string | null, isMine: boolean): string {
  const text = (name: string) => {
    const value = fields[name];
    return typeof value === 'string' ? value : undefined;
  };
  if (kind === 'transfer') return isMine ? `to ${short(text('to'))}` : `from ${short(author)}`;
  if (kind === 'escrow') return isMine ? `for ${short(text('payee'))}` : `by ${short(author)}`;
  if (kind === 'claim' || kind === 'refund') return `of ${short(text('escrow'))}`;
  return '';
}

function short(id: string | null | undefined): string {
  return id ? printable(id).slice(0, 16) : 'the network';
}

/** A node's words may not steer a terminal. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e]/g, '?').slice(0, 64);
}

function time(timeMs: number): string {
  return timeMs > 8.64e15 ? '-' : `${new Date(timeMs).toISOString().slice(0, 19)}Z`;
}
