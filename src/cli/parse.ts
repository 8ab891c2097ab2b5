/** Option values: parsed strictly, and refused with what would have been right. */
import { parseNeuro } from '../ledger/neuro.ts';
import { UsageError } from './errors.ts';

/** A commander parser that takes one of `choices`; `kind` names it in the error (`unknown-preset`). */
export function oneOf<T extends string>(kind: string, choices: readonly T[]): (text: string) => T {
  return (text) => {
    const choice = choices.find((each) => each === text);
    if (choice !== undefined) return choice;
    const near = closest(text, choices);
    const hint = near === undefined ? '.' : `; did you mean '${near}'?`;
    throw new UsageError(
      `unknown-${kind}`,
      `unknown ${kind} '${text}'${hint} Choose from: ${choices.join(', ')}`,
    );
  };
}

export interface Range {
  readonly min?: number;
  readonly max?: number;
}

/** A commander parser for a whole number in the range, both ends included. */
export function integer(name: string, range: Range = {}): (text: string) => number {
  return (text) => {
    if (!/^[+-]?\d+$/.test(text))
      throw new UsageError('bad-number', `${name} is a whole number, not '${text}'`);
    return inRange(name, Number(text), range);
  };
}

/** A commander parser for a finite number in the range, both ends included. */
export function decimal(name: string, range: Range = {}): (text: string) => number {
  return (text) => {
    const value = text.trim() === '' ? Number.NaN : Number(text);
    if (!Number.isFinite(value)) throw new UsageError('bad-number', `${name} is a number, not '${text}'`);
    return inRange(name, value, range);
  };
}

/** A commander parser for an amount of NEURO such as `0.002`, or `0`: micro-NEURO. */
export function neuroAmount(name: string): (text: string) => number {
  return (text) => {
    const parsed = parseNeuro(text);
    if (!parsed.ok && parsed.code === 'zero-amount') return 0;
    if (!parsed.ok) throw new UsageError(parsed.code, `${name}: ${parsed.detail}`);
    return inRange(name, Number(parsed.value), { max: Number.MAX_SAFE_INTEGER });
  };
}

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  kB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** A commander parser for an amount of memory: `4GB`, `512 MiB`, `1.5gb`, bytes without a unit. */
export function byteCount(name: string): (text: string) => number {
  return (text) => {
    const [, digits = '', unit = ''] = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text.trim()) ?? [];
    const factor = Object.entries(byteUnits).find(([key]) => key.toLowerCase() === unit.toLowerCase())?.[1];
    const bytes = digits === '' || factor === undefined ? Number.NaN : Math.floor(Number(digits) * factor);
    if (!Number.isSafeInteger(bytes))
      throw new UsageError('bad-size', `${name} is an amount such as 4GB or 512MiB, not '${text}'`);
    return inRange(name, bytes, { min: 1 });
  };
}

/** A commander parser for an option that may come several times. */
export const collect = (value: string, previous: readonly string[] = []): string[] => [...previous, value];

export const port = integer('the port', { min: 0, max: 65535 });

function inRange(
  name: string,
  value: number,
  { min = -Infinity, max = Number.MAX_SAFE_INTEGER }: Range,
): number {
  if (value < min) throw new UsageError('out-of-range', `${name} is at least ${min}, not ${value}`);
  if (value > max) throw new UsageError('out-of-range', `${name} is at most ${max}, not ${value}`);
  return value;
}

/** The choice a typing mistake away: at most a third of the word, and never more than three letters. */
export function closest<T extends string>(word: string, choices: readonly T[]): T | undefined {
  let best: T | undefined;
  let bestDistance = Math.min(3, Math.ceil(Math.max(word.length, 2) / 3)) + 1;
  for (const choice of choices) {
    const distance = editDistance(word.toLowerCase(), choice.toLowerCase());
    if (distance < bestDistance) {
      best = choice;
      bestDistance = distance;
    }
  }
  return best;
}

/** Insertions, deletions, substitutions and swaps of neighbours (optimal string alignment). */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = last[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      let distance = Math.min(last[j]! + 1, row[j - 1]! + 1, substitution);
      const isSwap = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      if (isSwap) distance = Math.min(distance, beforeLast[j - 2]! + 1);
      row.push(distance);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length]!;
}
