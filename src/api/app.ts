/**
 * The HTTP face of one node: status, metrics, events, control. A plain fetch handler, so it runs under any server and
 * in tests without one. Knows the node only through what it is handed.
 */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { LedgerPort } from '../ledger/port.ts';
import type { ReceiptDocument } from '../peer/payments.ts';
import type { TextGenerator } from '../peer/text-generator.ts';
import type { Clock } from '../std/clock.ts';
import type { Random } from '../std/random.ts';
import { hasBearer } from './bearer.ts';
import { readersMax, type Subscribe, streamEvents } from './event-stream.ts';
import type { KeyAccounts } from './key-accounts.ts';
import { createLedgerRoutes } from './ledger.ts';
import { metricsContentType, renderMetrics } from './metrics.ts';
import { createKeyRoutes, createPaymentRoutes } from './money.ts';
import { createOpenAiRoutes } from './openai/routes.ts';
import type { NodeStatus } from './status.ts';

/** What `/v1` needs. */
export interface TextOptions {
  readonly generator: TextGenerator;
  /** Ids, and the seeds of requests without one. */
  readonly random: Random;
  /** One of these is asked for; none: no key is needed. */
  readonly keys?: KeyAccounts;
  /** Generations at once; each choice of a request is one. */
  readonly generationsMax?: number;
}

export interface ApiOptions {
  readonly status: () => NodeStatus;
  readonly subscribe: Subscribe;
  /** Asks the node to stop in its own time; returns at once. */
  readonly stop: () => void;
  /** What control routes want as `Authorization: Bearer …`; at least 16 characters. */
  readonly token: string;
  readonly clock: Clock;
  /** Without it the node answers no prompts, and `/v1` is not there. */
  readonly text?: TextOptions;
  /** Without it `/api/ledger` is not there. */
  readonly ledger?: LedgerPort;
  /** Of escrows, signed and held by this node; without it `/api/payments` is not there. */
  readonly receipts?: () => readonly ReceiptDocument[];
}

const bodyBytesMax = 64 * 1024;

export function createApi(options: ApiOptions): Hono {
  const app = new Hono();
  let readers = 0;

  app.use(async (context, next) => {
    await next();
    context.header('X-Content-Type-Options', 'nosniff');
    context.header('Cache-Control', 'no-store');
  });
  const { text, clock, status } = options;
  const openAi = text && createOpenAiRoutes({ ...text, clock, fingerprint: () => fingerprint(status()) });
  // Before the limit below: it has its own.
  if (openAi) app.route('/v1', openAi.app);
  app.use(
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: (context) => fail(context, 413, 'too-large', `at most ${bodyBytesMax} bytes`),
    }),
  );

  app.get('/healthz', (context) => context.json({ ok: true }));
  app.get('/api/status', (context) => context.json(options.status()));
  app.get('/metrics', (context) =>
    context.body(renderMetrics(options.status(), openAi?.counts()), 200, {
      'Content-Type': metricsContentType,
    }),
  );
  app.get('/api/events', (context) => {
    if (readers >= readersMax)
      return fail(context, 503, 'too-many-readers', `at most ${readersMax} at a time`);
    readers += 1;
    return streamEvents(context, options.subscribe, options.clock, () => {
      readers -= 1;
    });
  });
  if (options.receipts) app.route('/api/payments', createPaymentRoutes(options.receipts, options.token));
  if (text?.keys) app.route('/api/keys', createKeyRoutes(text.keys, options.token));
  if (options.ledger) app.route('/api/ledger', createLedgerRoutes(options.ledger));
  app.post('/api/stop', (context) => {
    if (!hasBearer(context, [options.token])) {
      context.header('WWW-Authenticate', 'Bearer');
      return fail(context, 401, 'unauthorized', "this route needs the node's token");
    }
    options.stop();
    return context.json({ stopping: true }, 202);
  });

  app.notFound((context) =>
    fail(context, 404, 'not-found', `no ${context.req.method} ${context.req.path} here`),
  );
  app.onError((error, context) => fail(context, 500, 'bug', error.message));
  return app;
}

function fail(
  context: Context,
  status: 401 | 404 | 413 | 500 | 503,
  code: string,
  message: string,
): Response {
  return context.json({ error: { code, message } }, status);
}

/** Changes with the weights that answer. */
function fingerprint({ round, stateHash }: NodeStatus): string {
  return `fp_${round}_${stateHash?.slice(0, 12) ?? 'initial'}`;
}
