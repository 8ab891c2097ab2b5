/**
 * What only who has the node's token may read of its money: what each API key has used and its receipts, and the receipts
 * that the node has signed and holds.
 */
import { type Context, Hono } from 'hono';
import type { ReceiptDocument } from '../peer/payments.ts';
import { hasBearer } from './bearer.ts';
import type { KeyAccounts } from './key-accounts.ts';
import { keyOf, LedgerApiError, limitOf, numberOf, onlyParameters } from './ledger-parameters.ts';

/** To be mounted at `/api/keys`. `token`: of the node. */
export function createKeyRoutes(accounts: KeyAccounts, token: string): Hono {
  const app = guarded(token);
  app.get('/', (context) => {
    onlyParameters(context);
    return context.json({ keys: accounts.list() });
  });
  app.get('/:id/receipts', (context) => receiptPage(context, accounts));
  return app;
}

/** To be mounted at `/api/payments`. `receipts`: by escrow. */
export function createPaymentRoutes(receipts: () => readonly ReceiptDocument[], token: string): Hono {
  const app = guarded(token);
  app.get('/receipts', (context) => {
    onlyParameters(context, 'after', 'limit');
    const limit = limitOf(context);
    const after = keyOf(context, 'after') ?? '';
    const rest = receipts().filter(({ escrow }) => escrow > after);
    const page = rest.slice(0, limit);
    return context.json({ receipts: page, next: rest.length > limit ? page.at(-1)!.escrow : null });
  });
  return app;
}

function guarded(token: string): Hono {
  const app = new Hono();
  app.onError((error, context) => {
    const [status, code] =
      error instanceof LedgerApiError ? [error.status, error.code] : [500 as const, 'bug'];
    return context.json({ error: { code, message: error.message } }, status);
  });
  app.use(async (context, next) => {
    if (hasBearer(context, [token])) return next();
    context.header('WWW-Authenticate', 'Bearer');
    return context.json(
      { error: { code: 'unauthorized', message: "this route needs the node's token" } },
      401,
    );
  });
  return app;
}

async function receiptPage(context: Context, accounts: KeyAccounts): Promise<Response> {
  onlyParameters(context, 'before', 'limit');
  const limit = limitOf(context);
  const before = numberOf(context, 'before');
  const id = context.req.param('id') ?? '';
  const receipts = await accounts.receipts(id, { limit, ...(before !== undefined && { before }) });
  if (!receipts) throw new LedgerApiError(404, 'no-key', `no API key ${id.slice(0, 40)} here`);
  const last = receipts.at(-1);
  const next = last && last.number > 1 && receipts.length === limit ? String(last.number) : null;
  return context.json({ receipts, next });
}
