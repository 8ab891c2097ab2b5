/**
 * The routes under `/v1` that clients of OpenAI speak: models, completions, chat completions. Knows the model only as a
 * `TextGenerator`.
 */
import { type Context, Hono } from 'hono';
import { bodyLimit } from 'hono/body-limit';
import type { TextGenerator } from '../../peer/text-generator.ts';
import type { Clock } from '../../std/clock.ts';
import type { Random } from '../../std/random.ts';
import type { KeyAccounts } from '../key-accounts.ts';
import { createAdmission } from './admission.ts';
import { type AnswerParts, answer } from './answer.ts';
import { readJson } from './body.ts';
import { chatWork, parseChat } from './chat.ts';
import { completionWork, parseCompletion } from './completions.ts';
import { createTextCounters, type TextCounts } from './counters.ts';
import { type Envelope, randomId } from './envelope.ts';
import { ApiError, apiErrorOf, errorResponse } from './errors.ts';
import { bodyBytesMax, generationsMaxDefault } from './limits.ts';

export interface OpenAiOptions {
  readonly generator: TextGenerator;
  readonly clock: Clock;
  /** Ids, and the seeds of requests without one. */
  readonly random: Random;
  /** Which weights answer: changes when they do. */
  readonly fingerprint: () => string;
  /** One of these is asked for as `Authorization: Bearer …`; none: no key is needed. */
  readonly keys?: KeyAccounts;
  /** Generations at once; each choice of a request is one. */
  readonly generationsMax?: number;
}

export interface OpenAiRoutes {
  /** To be mounted at `/v1`. */
  readonly app: Hono;
  readonly counts: () => TextCounts;
}

export function createOpenAiRoutes(options: OpenAiOptions): OpenAiRoutes {
  const { generator, clock, random, fingerprint, keys } = options;
  const admission = createAdmission(options.generationsMax ?? generationsMaxDefault);
  const counters = createTextCounters();
  const partsFor = (context: Context): AnswerParts => {
    const account = keys?.find(context);
    return { generator, admission, counters, clock, ...(account && { account }) };
  };
  const model = modelJson(generator, clock);
  const envelope = (prefix: string): Envelope => ({
    id: randomId(prefix, random),
    created: seconds(clock),
    model: generator.model,
    system_fingerprint: fingerprint(),
  });
  const requireModel = ({ model: asked }: { readonly model: string }) => {
    if (asked !== generator.model) throw unknownModel(asked, generator.model);
  };

  const app = new Hono();
  app.onError((error, context) => errorResponse(context, apiErrorOf(error)));
  app.use(async (context, next) => {
    await next();
    counters.request(routeName(context), context.res.status);
  });
  app.use(async (context, next) => {
    requireRight(context, keys);
    await next();
  });
  app.use(
    bodyLimit({
      maxSize: bodyBytesMax,
      onError: (context) => {
        const error = new ApiError(413, 'request_too_large', `A body has at most ${bodyBytesMax} bytes.`);
        return errorResponse(context, error);
      },
    }),
  );
  app.get('/models', (context) => context.json({ object: 'list', data: [model] }));
  app.get('/models/:id{.+}', (context) => {
    requireModel({ model: context.req.param('id') });
    return context.json(model);
  });
  app.post('/completions', async (context) => {
    const parameters = parseCompletion(await readJson(context));
    requireModel(parameters);
    return answer(
      context,
      partsFor(context),
      completionWork(parameters, generator, random, envelope('cmpl-')),
    );
  });
  app.post('/chat/completions', async (context) => {
    const parameters = parseChat(await readJson(context));
    requireModel(parameters);
    return answer(context, partsFor(context), chatWork(parameters, generator, random, envelope('chatcmpl-')));
  });
  app.all('*', (context) => {
    throw new ApiError(404, 'unknown_url', `Unknown request URL: ${context.req.method} ${context.req.path}.`);
  });
  return { app, counts: () => counters.counts(admission.taken()) };
}

/** Throws ApiError 401 or 403. */
function requireRight(context: Context, keys: KeyAccounts | undefined): void {
  if (keys && keys.size > 0) {
    if (keys.find(context)) return;
    throw new ApiError(401, 'invalid_api_key', 'This node needs an API key: Authorization: Bearer KEY.');
  }
  // Without keys it is for this machine alone, and a page whose own name leads to 127.0.0.1 is not of this machine.
  const { hostname } = new URL(context.req.url);
  if (/^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/.test(hostname)) return;
  const message = `This node answers as localhost, not as '${hostname.slice(0, 100)}', unless it is given API keys.`;
  throw new ApiError(403, 'host_not_allowed', message);
}

/** `max_model_len` is no field of OpenAI's: the context, under the name that other servers give it. */
function modelJson({ model, contextMax }: TextGenerator, clock: Clock) {
  return {
    id: model,
    object: 'model',
    created: seconds(clock),
    owned_by: 'neuroshard',
    max_model_len: contextMax,
  };
}

function seconds(clock: Clock): number {
  return Math.floor(clock.nowMs() / 1000);
}

function unknownModel(asked: string, offered: string): ApiError {
  const message = `The model '${asked.slice(0, 100)}' does not exist here; this node has '${offered}'.`;
  return new ApiError(404, 'model_not_found', message, 'model');
}

function routeName(context: Context): string {
  const name = /\/v1\/(models|chat\/completions|completions)(?:\/|$)/.exec(context.req.path)?.[1];
  return name ?? 'other';
}
