/**
 * What callers of `/api/ledger` may ask for: pages with a bound, ids and numbers read strictly. A wrong parameter is one
 * coded failure that names it.
 */
import type { Context } from 'hono';
import { CodedError } from '../std/outcome.ts';

/** A failure with the HTTP status that says it. */
export class LedgerApiError extends CodedError {
  override name = 'LedgerApiError';
  readonly status: 400 | 404 | 409 | 413 | 415 | 422 | 429 | 503;
  constructor(status: LedgerApiError['status'], code: string, message: string) {
    super(code, message);
    this.status = status;
  }
}

export const pageDefault = 20;
export const pageMax = 100;
/** Pages whose entries stand in blocks that must be read for them. */
export const historyPageMax = 50;

/** Refuses what the route does not know: a misspelt `limit` would give the wrong page without a word. */
export function onlyParameters(context: Context, ...names: readonly string[]): void {
  for (const [name, values] of Object.entries(context.req.queries())) {
    if (!names.includes(name))
      throw new LedgerApiError(400, 'unknown-parameter', `no parameter ${name} here`);
    if (values.length > 1) throw bad(name, 'given once');
  }
}

export function limitOf(context: Context, max = pageMax): number {
  const text = context.req.query('limit');
  if (text === undefined) return Math.min(pageDefault, max);
  const limit = wholeNumber(text);
  if (limit === undefined || limit < 1 || limit > max) throw bad('limit', `from 1 to ${max}`);
  return limit;
}

/** A block's number, or undefined when it is not given. */
export function numberOf(context: Context, name: string): number | undefined {
  const text = context.req.query(name);
  if (text === undefined) return undefined;
  return blockNumberOf(name, text);
}

export function blockNumberOf(name: string, text: string): number {
  const number = wholeNumber(text);
  if (number === undefined) throw bad(name, 'the number of a block');
  return number;
}

/** Where a transaction stands: `<block>.<index>`. */
export function placeOf(context: Context, name: string): { number: number; index: number } | undefined {
  const text = context.req.query(name);
  if (text === undefined) return undefined;
  const [number, index, ...rest] = text.split('.').map(wholeNumber);
  if (number === undefined || index === undefined || index >= 16_384 || rest.length > 0)
    throw bad(name, 'as `next` of the page before gives it');
  return { number, index };
}

export function placeText({ number, index }: { readonly number: number; readonly index: number }): string {
  return `${number}.${index}`;
}

/** 64 lower-case hex digits: a node id, or the id of a transaction. */
export function hashText(name: string, text: string): string {
  if (!/^[0-9a-f]{64}$/.test(text)) throw bad(name, '64 hex digits');
  return text;
}

/** A key of a table to begin after. */
export function keyOf(context: Context, name: string): string | undefined {
  const text = context.req.query(name);
  if (text !== undefined && !/^[0-9a-z/]{1,100}$/.test(text))
    throw bad(name, 'as `next` of the page before gives it');
  return text;
}

export function flagOf(context: Context, name: string): boolean {
  const text = context.req.query(name);
  if (text !== undefined && text !== 'true' && text !== 'false') throw bad(name, 'true or false');
  return text === 'true';
}

/** A few lower-case words: the kind of a transaction. */
export function kindOf(context: Context): string | undefined {
  const text = context.req.query('kind');
  if (text !== undefined && !/^[a-z][a-z-]{0,31}$/.test(text)) throw bad('kind', 'the name of a kind');
  return text;
}

function wholeNumber(text: string): number | undefined {
  const number = /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN;
  // Places are the block's number times 2^14.
  return number < 2 ** 39 ? number : undefined;
}

function bad(name: string, form: string): LedgerApiError {
  return new LedgerApiError(400, 'bad-parameter', `${name} is ${form}`);
}
