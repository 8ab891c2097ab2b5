/**
 * A node's `/api/ledger`, asked over HTTP. Answers are checked for what the wallet reads of them; a refusal is the node's
 * own code and line. Knows no keys.
 */
import { z } from 'zod';
import type { AccountDocument, HeadDocument, TransactionDocument } from '../api/ledger-documents.ts';
import { CodedError } from '../std/outcome.ts';

const timeoutMs = 15_000;
const answerBytesMax = 16 * 1024 * 1024;

const hash = z.string().regex(/^[0-9a-f]{64}$/);
const amount = z.string().regex(/^\d{1,20}$/);
const count = z.number().int().min(0);

/** Fields that this program does not know are left out. */
const headSchema = z.object({
  ...{ networkId: hash, number: count, hash, height: count, epoch: count, stateRoot: hash, timeMs: count },
}) satisfies z.ZodType<HeadDocument>;

const accountSchema = z.object({
  ...{ id: hash, balance: amount, stake: amount, vesting: amount, bond: amount },
  unbonding: z.array(z.object({ amount, freeMs: count })),
  ...{ nonce: count, newestNonce: count, proofs: count, convicted: z.boolean() },
  ...{ block: count, stateRoot: hash },
}) satisfies z.ZodType<Omit<AccountDocument, 'proof'>>;

const transactionSchema = z.object({
  ...{ id: hash, kind: z.string(), author: hash.nullable(), nonce: count, body: z.json() },
  ...{ block: count, index: count, timeMs: count },
}) satisfies z.ZodType<TransactionDocument>;

const waitingSchema = z.discriminatedUnion('final', [
  z.object({ final: z.literal(false), id: hash }),
  transactionSchema.extend({ final: z.literal(true) }),
]);

const historySchema = z.object({ transactions: z.array(transactionSchema), next: z.string().nullable() });
const submittedSchema = z.object({ id: hash });
const errorSchema = z.object({
  error: z.object({ code: z.string().max(100), message: z.string().max(1000) }),
});

export type Account = z.infer<typeof accountSchema>;
export type History = z.infer<typeof historySchema>;
export type TransactionState = z.infer<typeof waitingSchema>;

export interface HistoryPage {
  readonly limit: number;
  readonly before?: string | undefined;
}

/**
 * Every call throws CodedError: `no-node` (nobody answers), `not-a-node` (something else does), or the code of the node's
 * refusal.
 */
export interface LedgerClient {
  head(): Promise<z.infer<typeof headSchema>>;
  account(id: string): Promise<Account>;
  history(id: string, page: HistoryPage): Promise<History>;
  transaction(id: string): Promise<TransactionState>;
  /** The transaction's id. */
  submit(transaction: Uint8Array): Promise<string>;
}

/** `node`: http(s)://host:port of a node's API. Throws CodedError `bad-node`. */
export function ledgerClient(node: string, signal: AbortSignal): LedgerClient {
  const base = baseOf(node);
  const ask = async <Schema extends z.ZodType>(
    schema: Schema,
    path: string,
    init: RequestInit = {},
  ): Promise<z.infer<Schema>> => {
    const url = `${base}/api/ledger${path}`;
    let response: Response;
    let text: string;
    try {
      const within = AbortSignal.any([signal, AbortSignal.timeout(timeoutMs)]);
      response = await fetch(url, { ...init, signal: within, redirect: 'error' });
      text = await textOf(response);
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof CodedError) throw error;
      const advice = 'is it running, and is this the address of its API?';
      throw new CodedError('no-node', `no node answers at ${base}: ${advice}`, { cause: error });
    }
    const document = jsonOf(text);
    if (!response.ok) {
      const refused = errorSchema.safeParse(document);
      if (refused.success) throw refusal(refused.data.error, base);
      throw notANode(base);
    }
    const parsed = schema.safeParse(document);
    if (!parsed.success) throw notANode(base);
    return parsed.data;
  };
  return {
    head: () => ask(headSchema, ''),
    account: (id) => ask(accountSchema, `/accounts/${id}`),
    history: (id, { limit, before }) => {
      const query = new URLSearchParams({ limit: String(limit), ...(before !== undefined && { before }) });
      return ask(historySchema, `/accounts/${id}/history?${query}`);
    },
    transaction: (id) => ask(waitingSchema, `/transactions/${id}`),
    submit: async (transaction) => {
      const headers = { 'Content-Type': 'application/octet-stream' };
      const body = new Uint8Array(transaction);
      return (await ask(submittedSchema, '/transactions', { method: 'POST', headers, body })).id;
    },
  };
}

function baseOf(node: string): string {
  const url = URL.parse(/^https?:\/\//.test(node) ? node : `http://${node}`);
  if (url?.pathname !== '/' || url.search !== '' || url.hash !== '')
    throw new CodedError('bad-node', `'${node}' is no address of a node, such as http://127.0.0.1:8000`);
  return url.origin;
}

async function textOf(response: Response): Promise<string> {
  const decoder = new TextDecoder();
  let text = '';
  let bytes = 0;
  for await (const piece of response.body ?? []) {
    bytes += piece.length;
    if (bytes > answerBytesMax) throw new CodedError('too-large', 'the node answers with too much');
    text += decoder.decode(piece, { stream: true });
  }
  return text + decoder.decode();
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function refusal(
  { code, message }: { readonly code: string; readonly message: string },
  base: string,
): CodedError {
  if (code === 'not-found') return new CodedError('no-ledger', `the node at ${base} serves no ledger`);
  // Written by somebody else: nothing in it may steer a terminal.
  const clean = message.replace(/[^\x20-\x7e]/g, '?');
  return new CodedError(/^[a-z-]+$/.test(code) ? code : 'refused', `the node at ${base} says: ${clean}`);
}

function notANode(base: string): CodedError {
  return new CodedError('not-a-node', `what answers at ${base} is not a node of NeuroShard`);
}
