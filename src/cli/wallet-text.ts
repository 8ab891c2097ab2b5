/** Accounts and histories as people read them. Knows no node and no key. */
import { formatNeuro } from '../ledger/neuro.ts';
import type { Account, History } from './ledger-client.ts';

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
    const to = typeof fields.to === 'string' ? fields.to : undefined;
    const other = kind === 'transfer' ? (isMine ? `to ${short(to)}` : `from ${short(author)}`) : '';
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
