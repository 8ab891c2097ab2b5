/**
 * The routes under `/api/ledger`: what the ledger holds, in pages, and the door for signed transactions. Reads only what
 * is final. Knows the node's ledger as a `LedgerPort` and nothing of consensus.
 */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { decodeBlock, type LedgerBlock } from '../ledger/block.ts';
import type { LedgerPort } from '../ledger/port.ts';
import type { TransactionFilter, TransactionPlace } from '../ledger/store.ts';
import type { TableName } from '../ledger/tables.ts';
import { transactionBytesMax, transactionId } from '../ledger/transaction.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import { CodedError, type Rejection } from '../std/outcome.ts';
import {
  accountDocument,
  blockDocument,
  headDocument,
  jsonOf,
  supplyDocument,
  type TransactionDocument,
  transactionDocument,
  validatorDocument,
} from './ledger-documents.ts';
import {
  blockNumberOf,
  flagOf,
  hashText,
  historyPageMax,
  keyOf,
  kindOf,
  LedgerApiError,
  limitOf,
  numberOf,
  onlyParameters,
  placeOf,
  placeText,
} from './ledger-parameters.ts';

/** To be mounted at `/api/ledger`. */
export function createLedgerRoutes(port: LedgerPort): Hono {
  const app = new Hono();
  app.onError((error, context) => {
    if (error instanceof LedgerApiError)
      return context.json({ error: { code: error.code, message: error.message } }, error.status);
    // A ledger that cannot be read is no bug of the request.
    const code = error instanceof CodedError ? error.code : 'bug';
    return context.json({ error: { code, message: error.message } }, code === 'bug' ? 500 : 503);
  });
  app.get('/', (context) => {
    onlyParameters(context);
    return context.json(headDocument(port));
  });
  blockRoutes(app, port);
  transactionRoutes(app, port);
  accountRoutes(app, port);
  stateRoutes(app, port);
  return app;
}

function blockRoutes(app: Hono, port: LedgerPort): void {
  app.get('/blocks', async (context) => {
    onlyParameters(context, 'before', 'limit');
    const limit = limitOf(context);
    const before = numberOf(context, 'before');
    const found = await port.store.blocks({ limit, ...(before !== undefined && { before }) });
    const last = found.at(-1);
    const next = found.length < limit || !last || last.number <= 1 ? null : String(last.number);
    return context.json({ blocks: found.map(blockDocument), next });
  });
  app.get('/blocks/:number', async (context) => {
    onlyParameters(context, 'payload');
    const number = blockNumberOf('the block', context.req.param('number'));
    const withPayload = flagOf(context, 'payload');
    const found = await port.store.block(number);
    if (!found) throw new LedgerApiError(404, 'no-block', `block ${number} is not here`);
    const { transactions } = decoded(found.payload, number);
    const { networkId } = port.constants;
    return context.json({
      ...blockDocument(found),
      certificate: found.certificate && toHex(found.certificate),
      content: transactions.map((transaction, index) => {
        const id = transactionId(networkId, transaction);
        return transactionDocument(transaction, { id, number, index, timeMs: found.timeMs });
      }),
      ...(withPayload && { payload: toHex(found.payload) }),
    });
  });
}

function decoded(payload: Uint8Array, number: number): LedgerBlock {
  const block = decodeBlock(payload);
  if (!block.ok) throw new CodedError('ledger-damaged', `block ${number} cannot be read: ${block.code}`);
  return block.value;
}

function transactionRoutes(app: Hono, port: LedgerPort): void {
  app.get('/transactions', (context) => {
    onlyParameters(context, 'before', 'limit', 'kind');
    const kind = kindOf(context);
    return transactionPage(context, port, kind === undefined ? {} : { kind }, 'transactions');
  });
  app.get('/proofs', (context) => {
    onlyParameters(context, 'before', 'limit');
    return transactionPage(context, port, { kind: 'proof' }, 'proofs');
  });
  app.get('/transactions/:id', async (context) => {
    onlyParameters(context);
    const id = hashText('the transaction', context.req.param('id'));
    const place = await port.store.transaction(fromHex(id));
    if (place) {
      const [document] = await documentsOf(port, [place]);
      if (document) return context.json({ final: true, ...document });
    }
    const isWaiting = port.mempool.candidates().some((one) => toHex(one.id) === id);
    if (isWaiting) return context.json({ final: false, id });
    throw new LedgerApiError(404, 'no-transaction', `transaction ${id} is not here`);
  });
  app.post(
    '/transactions',
    bodyLimit({
      maxSize: transactionBytesMax,
      onError: () => {
        throw new LedgerApiError(413, 'too-large', `a transaction has at most ${transactionBytesMax} bytes`);
      },
    }),
    async (context) => {
      onlyParameters(context);
      const type = context.req.header('Content-Type')?.split(';')[0]?.trim().toLowerCase();
      if (type !== 'application/octet-stream' && type !== 'application/vnd.ipld.dag-cbor') {
        const message = 'a transaction is sent as its canonical bytes, application/octet-stream';
        throw new LedgerApiError(415, 'unsupported-media-type', message);
      }
      const taken = port.submit(new Uint8Array(await context.req.arrayBuffer()));
      if (!taken.ok) throw refusal(taken);
      return context.json({ id: toHex(taken.value.id), final: false }, 202);
    },
  );
}

/** Codes that say something of this node, or of the moment, rather than of the transaction. */
const statuses: Readonly<Record<string, LedgerApiError['status']>> = {
  known: 409,
  'stale-nonce': 409,
  'future-nonce': 409,
  'too-large': 413,
  'too-many-of-author': 429,
  'mempool-full': 503,
  'not-ready': 503,
};
/** Codes that say that the bytes are no transaction; what begins with `malformed` does, too. */
const formCodes = ['not-canonical', 'unknown-kind', 'unsigned', 'bad-signature', 'not-signed-by-author'];

function refusal({ code, detail }: Rejection): LedgerApiError {
  const isForm = code.startsWith('malformed') || formCodes.includes(code);
  const status = statuses[code] ?? (isForm ? 400 : 422);
  return new LedgerApiError(status, code, detail === '' ? `refused: ${code}` : `refused: ${code}: ${detail}`);
}

async function transactionPage(
  context: Context,
  port: LedgerPort,
  filter: TransactionFilter,
  name: string,
): Promise<Response> {
  const limit = limitOf(context, historyPageMax);
  const before = placeOf(context, 'before');
  const places = await port.store.transactions(filter, { limit, ...(before && { before }) });
  const last = places.at(-1);
  const next = last && places.length === limit ? placeText(last) : null;
  return context.json({ [name]: await documentsOf(port, places), next });
}

/** Reads each block once. Those pruned in the meantime are left out. */
async function documentsOf(
  port: LedgerPort,
  places: readonly TransactionPlace[],
): Promise<TransactionDocument[]> {
  const documents: TransactionDocument[] = [];
  let open: { readonly number: number; readonly block: LedgerBlock } | undefined;
  for (const { id, number, index } of places) {
    if (open?.number !== number) {
      const found = await port.store.block(number);
      if (!found) continue;
      open = { number, block: decoded(found.payload, number) };
    }
    const { transactions, timeMs } = open.block;
    documents.push(transactionDocument(transactions[index]!, { id, number, index, timeMs }));
  }
  return documents;
}

function accountRoutes(app: Hono, port: LedgerPort): void {
  app.get('/accounts', (context) =>
    keyedPage(context, port, 'account', 'accounts', (id) => {
      const { balance, stake, nonce } = port.state().get('account', id)!;
      return { id, balance: String(balance), stake: String(stake), nonce };
    }),
  );
  app.get('/accounts/:id', (context) => {
    onlyParameters(context, 'proof');
    const id = hashText('the account', context.req.param('id'));
    return context.json(accountDocument(port, id, flagOf(context, 'proof')));
  });
  app.get('/accounts/:id/history', (context) => {
    onlyParameters(context, 'before', 'limit', 'kind');
    const account = hashText('the account', context.req.param('id'));
    const kind = kindOf(context);
    return transactionPage(context, port, { account, ...(kind !== undefined && { kind }) }, 'transactions');
  });
}

function stateRoutes(app: Hono, port: LedgerPort): void {
  app.get('/supply', (context) => {
    onlyParameters(context);
    return context.json(supplyDocument(port.state(), port.head()));
  });
  app.get('/validators', (context) =>
    keyedPage(context, port, 'member', 'validators', (id) => validatorDocument(port.state(), id)),
  );
  app.get('/audits', (context) =>
    keyedPage(context, port, 'duty', 'audits', (id) => ({ id, ...row(port, 'duty', id) })),
  );
  app.get('/escrows', (context) =>
    keyedPage(context, port, 'escrow', 'escrows', (id) => ({ id, ...row(port, 'escrow', id) })),
  );
  app.get('/slashes', (context) =>
    keyedPage(
      context,
      port,
      'slash',
      'slashes',
      (id) => ({ id, block: Number(id.split('/')[0]), ...row(port, 'slash', id) }),
      'newest',
    ),
  );
}

function row(port: LedgerPort, table: TableName, key: string): object {
  return jsonOf(port.state().get(table, key)) as object;
}

/** Rows of a table by key, `after` the last of the page before; with `newest`, from the end backwards. */
function keyedPage(
  context: Context,
  port: LedgerPort,
  table: TableName,
  name: string,
  document: (key: string) => object,
  order: 'oldest' | 'newest' = 'oldest',
): Response {
  const cursor = order === 'oldest' ? 'after' : 'before';
  onlyParameters(context, cursor, 'limit');
  const limit = limitOf(context);
  const from = keyOf(context, cursor);
  const keys = port.state().keys(table);
  const place = from === undefined ? undefined : lowerBound(keys, from);
  let page: readonly string[];
  let more: boolean;
  if (order === 'oldest') {
    const start = place === undefined ? 0 : keys[place] === from ? place + 1 : place;
    page = keys.slice(start, start + limit);
    more = start + limit < keys.length;
  } else {
    const end = place ?? keys.length;
    page = keys.slice(Math.max(0, end - limit), end).reverse();
    more = end - limit > 0;
  }
  return context.json({ [name]: page.map(document), next: more ? page.at(-1)! : null, total: keys.length });
}

/** Index of the first key that is not below. */
function lowerBound(keys: readonly string[], wanted: string): number {
  let low = 0;
  for (let high = keys.length; low < high; ) {
    const middle = (low + high) >> 1;
    if (keys[middle]! < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
