/** Amounts as people write them: decimal NEURO with up to six digits after the point. Everything else counts micro-NEURO. */
import { accept, type Outcome, reject } from '../std/outcome.ts';
import { supplyMax } from './money.ts';
import type { Amount } from './tables.ts';

const digits = 6;
const unit = 10n ** BigInt(digits);

/** Reads `12`, `0.5`, `12.000001`; never rounds. Codes: `bad-amount`, `zero-amount`, `amount-too-large`. */
export function parseNeuro(text: string): Outcome<Amount> {
  const [, whole, part = ''] = /^(\d{1,40})(?:\.(\d{1,40}))?$/.exec(text) ?? [];
  if (whole === undefined) return reject('bad-amount', `an amount is a number such as 12.5, not '${text}'`);
  if (part.length > digits)
    return reject('bad-amount', `an amount has at most ${digits} digits after the point`);
  const amount = BigInt(whole) * unit + BigInt(part.padEnd(digits, '0'));
  if (amount === 0n) return reject('zero-amount', 'an amount is more than nothing');
  if (amount > supplyMax) return reject('amount-too-large', `there can never be ${text} NEURO`);
  return accept(amount);
}

/** `12.5`, `0.000001`; no thousands, no trailing zeros, no unit. */
export function formatNeuro(amount: Amount): string {
  const sign = amount < 0n ? '-' : '';
  const positive = amount < 0n ? -amount : amount;
  const part = (positive % unit).toString().padStart(digits, '0').replace(/0+$/, '');
  return `${sign}${positive / unit}${part === '' ? '' : `.${part}`}`;
}
