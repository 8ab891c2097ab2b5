/**
 * What each API key of a gateway has used, what it may use, and a signed receipt for every request: kept in a store, so that
 * a credit is not new after a restart. Knows keys by their id, a hash; no route and no model.
 */
import type { Context } from 'hono';
import { z } from 'zod';
import { priceOf } from '../ledger/price.ts';
import type { Amount } from '../ledger/tables.ts';
import { toHex, utf8 } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import { CodedError } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { bearerOf, digestOfToken } from './bearer.ts';

/** A key and what it is good for in all; without a limit it is not bounded. */
export interface ApiKey {
  readonly key: string;
  /** For people. */
  readonly name?: string;
  /** Tokens of prompts and answers. */
  readonly tokensMax?: number;
  /** Micro-NEURO, at the network's price. */
  readonly neuroMax?: Amount;
}

export interface KeyAccountsOptions {
  readonly keys: readonly ApiKey[];
  /** Micro-NEURO for 1,000 tokens. */
  readonly tokenPrice: number;
  readonly networkId: Uint8Array;
  /** The gateway's, of a digest. */
  readonly sign: (digest: Uint8Array) => Uint8Array;
  readonly store: Store;
  readonly clock: Pick<Clock, 'nowMs'>;
}

export interface KeyAccounts {
  /** No key is needed where there is none. */
  readonly size: number;
  /** Of the key that the request carries. */
  find(context: Context): KeyAccount | undefined;
  list(): readonly KeyDocument[];
  /** Newest first, before that number; undefined for an unknown id. */
  receipts(
    id: string,
    page: { readonly before?: number; readonly limit: number },
  ): Promise<readonly KeyReceipt[] | undefined>;
  /** Resolves when everything is on the disk. */
  flush(): Promise<void>;
}

export interface KeyAccount {
  /** Sets aside what a request may use at most, or as much of it as there is; undefined when there is nothing left. */
  reserve(asked: {
    readonly promptTokens: number;
    /** Of each choice. */
    readonly maxTokens: readonly number[];
  }): Reservation | undefined;
}

export interface Reservation {
  /** What each choice may draw: at least one token, at most what was asked for. */
  readonly maxTokens: readonly number[];
  /** What was used in the end; the rest is free again. Nothing drawn, nothing charged. */
  settle(used: {
    readonly request: string;
    readonly promptTokens: number;
    readonly completionTokens: number;
  }): void;
}

export interface KeyReceipt {
  /** Of this key's, from 1. */
  readonly number: number;
  readonly timeMs: number;
  /** Id of the answer, as its reader has it. */
  readonly request: string;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Decimal micro-NEURO, as all amounts here. */
  readonly amount: string;
  /** Hex, of the node, over all of the above; see docs/payment.md. */
  readonly signature: string;
}

export interface KeyDocument {
  readonly id: string;
  readonly name: string | null;
  readonly requests: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly spent: string;
  readonly tokensMax: number | null;
  readonly neuroMax: string | null;
  /** What it may still use; null: as much as it likes. */
  readonly tokensLeft: number | null;
}

const receiptsPerPage = 100;
const pagesKept = 100;
const keyIdBytes = 8;
const storePrefix = 'api-key-';

const count = z.number().int().min(0);
const decimal = z.string().regex(/^\d{1,20}$/);
const pageSchema = z.strictObject({
  requests: count,
  promptTokens: count,
  completionTokens: count,
  spent: decimal,
  receipts: z.array(
    z.strictObject({
      ...{ number: count, timeMs: count, request: z.string(), promptTokens: count, completionTokens: count },
      ...{ amount: decimal, signature: z.string() },
    }),
  ),
});

type Page = z.infer<typeof pageSchema>;

interface Account extends KeyAccount {
  readonly id: string;
  document(): KeyDocument;
  receipts(page: { readonly before?: number; readonly limit: number }): Promise<readonly KeyReceipt[]>;
  flush(): Promise<void>;
}

/** Throws CodedError `bad-key-account` for a record that cannot be read, `bad-api-key` for a key named twice. */
export async function openKeyAccounts(options: KeyAccountsOptions): Promise<KeyAccounts> {
  const accounts = new Map<string, Account>();
  const byDigest: (readonly [Uint8Array, Account])[] = [];
  for (const key of options.keys) {
    const account = await openAccount(options, key);
    if (accounts.has(account.id)) throw new CodedError('bad-api-key', 'an API key is given twice');
    accounts.set(account.id, account);
    byDigest.push([digestOfToken(key.key), account]);
  }
  return {
    size: accounts.size,
    find: (context) => bearerOf(context, byDigest),
    list: () => [...accounts.values()].map((account) => account.document()),
    receipts: async (id, page) => accounts.get(id)?.receipts(page),
    flush: async () => {
      await Promise.all([...accounts.values()].map((account) => account.flush()));
    },
  };
}

async function openAccount(options: KeyAccountsOptions, apiKey: ApiKey): Promise<Account> {
  const { store, clock, tokenPrice } = options;
  const id = toHex(taggedHash('neuroshard/api-key-id/1', utf8(apiKey.key)).slice(0, keyIdBytes));
  const prefix = `${storePrefix}${id}-`;
  let pageNumber = Number((await store.list(prefix)).at(-1)?.slice(prefix.length) ?? 0);
  let page = await readPage(store, pageKey(prefix, pageNumber));
  let reserved = 0;
  const keep = keeper(store);

  const tokensLeft = (): number | null => {
    const { tokensMax, neuroMax } = apiKey;
    const used = page.promptTokens + page.completionTokens + reserved;
    const byTokens = tokensMax === undefined ? null : Math.max(0, tokensMax - used);
    if (neuroMax === undefined || tokenPrice === 0) return byTokens;
    const left = neuroMax - BigInt(page.spent) - priceOf(reserved, options);
    const byNeuro = left <= 0n ? 0 : Number((left * 1000n) / BigInt(tokenPrice));
    return byTokens === null ? byNeuro : Math.min(byTokens, byNeuro);
  };
  const charge = (request: string, promptTokens: number, completionTokens: number) => {
    const spent = BigInt(page.spent);
    const price = priceOf(promptTokens + completionTokens, options);
    const room = apiKey.neuroMax === undefined ? price : apiKey.neuroMax - spent;
    const amount = price < room ? price : room > 0n ? room : 0n;
    const number = page.requests + 1;
    const fields = { number, timeMs: Math.floor(clock.nowMs()), request, promptTokens, completionTokens };
    const receipt = signedReceipt(options, id, { ...fields, amount: String(amount) });
    const isFull = page.receipts.length >= receiptsPerPage;
    page = {
      requests: number,
      promptTokens: page.promptTokens + promptTokens,
      completionTokens: page.completionTokens + completionTokens,
      spent: String(spent + amount),
      receipts: isFull ? [receipt] : [...page.receipts, receipt],
    };
    if (isFull) {
      pageNumber += 1;
      const oldest = pageNumber - pagesKept;
      if (oldest >= 0) void store.delete(pageKey(prefix, oldest)).catch(() => undefined);
    }
    keep.soon(pageKey(prefix, pageNumber), utf8(JSON.stringify(page)));
  };
  return {
    id,
    reserve: ({ promptTokens, maxTokens }) => {
      const left = tokensLeft();
      const free = left === null ? Number.POSITIVE_INFINITY : left - promptTokens;
      if (free < maxTokens.length) return undefined;
      const each = Math.floor(free / maxTokens.length);
      const granted = maxTokens.map((asked) => Math.min(asked, each));
      const held = promptTokens + granted.reduce((sum, tokens) => sum + tokens, 0);
      reserved += held;
      let isHeld = true;
      return {
        maxTokens: granted,
        settle: (used) => {
          if (!isHeld) return;
          isHeld = false;
          reserved -= held;
          if (used.completionTokens > 0) charge(used.request, used.promptTokens, used.completionTokens);
        },
      };
    },
    document: () => ({
      id,
      name: apiKey.name ?? null,
      requests: page.requests,
      promptTokens: page.promptTokens,
      completionTokens: page.completionTokens,
      spent: page.spent,
      tokensMax: apiKey.tokensMax ?? null,
      neuroMax: apiKey.neuroMax === undefined ? null : String(apiKey.neuroMax),
      tokensLeft: tokensLeft(),
    }),
    receipts: async ({ before = Number.POSITIVE_INFINITY, limit }) => {
      const found: KeyReceipt[] = [];
      for (let number = pageNumber; number >= 0 && found.length < limit; number--) {
        const { receipts } = number === pageNumber ? page : await readPage(store, pageKey(prefix, number));
        if (receipts.length === 0) break;
        found.push(...receipts.filter((one) => one.number < before).reverse());
      }
      return found.slice(0, limit);
    },
    flush: () => keep.flush(),
  };
}

/** Writes the newest value of each key, never two at a time; what changes in between goes with the next. */
function keeper(store: Store) {
  const waiting = new Map<string, Uint8Array>();
  let running: Promise<void> | undefined;
  const run = async () => {
    for (const [key, value] of waiting) {
      waiting.delete(key);
      await store.put(key, value).catch(() => undefined);
    }
    running = undefined;
  };
  return {
    soon: (key: string, value: Uint8Array) => {
      waiting.set(key, value);
      running ??= run();
    },
    flush: async () => running,
  };
}

function pageKey(prefix: string, number: number): string {
  return prefix + String(number).padStart(8, '0');
}

async function readPage(store: Store, key: string): Promise<Page> {
  const bytes = await store.get(key);
  if (!bytes) return { requests: 0, promptTokens: 0, completionTokens: 0, spent: '0', receipts: [] };
  try {
    return pageSchema.parse(JSON.parse(new TextDecoder().decode(bytes)));
  } catch (error) {
    const detail = `what this API key has used cannot be read: ${key}`;
    throw new CodedError('bad-key-account', detail, { cause: error });
  }
}

function signedReceipt(
  { networkId, sign }: KeyAccountsOptions,
  id: string,
  receipt: Omit<KeyReceipt, 'signature'>,
): KeyReceipt {
  return { ...receipt, signature: toHex(sign(keyReceiptDigest(networkId, id, receipt))) };
}

/** What the gateway signs: which key used what, in which request, and what it owes for it. */
export function keyReceiptDigest(
  networkId: Uint8Array,
  id: string,
  { number, timeMs, request, promptTokens, completionTokens, amount }: Omit<KeyReceipt, 'signature'>,
): Uint8Array {
  const fields = [id, number, timeMs, request, promptTokens, completionTokens, BigInt(amount)];
  return taggedHash('neuroshard/key-receipt/1', networkId, encodeCanonical(fields));
}
