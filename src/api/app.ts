/**
 * The HTTP face of one node: status, metrics, events, control. A plain fetch handler, so it runs under any server and
 * in tests without one. Knows the node only through what it is handed.
 */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import { equalBytes, utf8 } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import { sha256 } from '../std/hash.ts';
import { readersMax, type Subscribe, streamEvents } from './event-stream.ts';
import { metricsContentType, renderMetrics } from './metrics.ts';
import type { NodeStatus } from './status.ts';

export interface ApiOptions {
  readonly status: () => NodeStatus;
  readonly subscribe: Subscribe;
  /** Asks the node to stop in its own time; returns at once. */
  readonly stop: () => void;
  /** What control routes want as `Authorization: Bearer …`; at least 16 characters. */
  readonly token: string;
  readonly clock: Clock;
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
  app.use(
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: (context) => fail(context, 413, 'too-large', `at most ${bodyBytesMax} bytes`),
    }),
  );

  app.get('/healthz', (context) => context.json({ ok: true }));
  app.get('/api/status', (context) => context.json(options.status()));
  app.get('/metrics', (context) =>
    context.body(renderMetrics(options.status()), 200, { 'Content-Type': metricsContentType }),
  );
  app.get('/api/events', (context) => {
    if (readers >= readersMax)
      return fail(context, 503, 'too-many-readers', `at most ${readersMax} at a time`);
    readers += 1;
    return streamEvents(context, options.subscribe, options.clock, () => {
      readers -= 1;
    });
  });
  app.post('/api/stop', (context) => {
    if (!isAuthorized(context, options.token)) {
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

/** Digests are compared, so the time taken tells nothing of how much of the token was right. */
function isAuthorized(context: Context, token: string): boolean {
  const given = /^Bearer (\S+)$/.exec(context.req.header('Authorization') ?? '')?.[1];
  return given !== undefined && equalBytes(sha256(utf8(given)), sha256(utf8(token)));
}
