/**
 * Failures in the shape that OpenAI's clients read: `{"error": {message, type, param, code}}`. Knows which HTTP status
 * each code of the generator means, and no route.
 * Source: https://platform.openai.com/docs/guides/error-codes
 */
import type { Context } from 'hono';
import { CodedError } from '../../std/outcome.ts';
import { retryAfterSeconds } from './limits.ts';

export type ErrorStatus = 400 | 401 | 402 | 403 | 404 | 413 | 415 | 429 | 500 | 503;

/** A request that is answered with an error; thrown by the routes, caught once for all of them. */
export class ApiError extends Error {
  override name = 'ApiError';
  readonly status: ErrorStatus;
  /** Stable, for machines. */
  readonly code: string;
  /** The parameter at fault, as a path (`messages[0].role`). */
  readonly param: string | null;
  constructor(status: ErrorStatus, code: string, message: string, param: string | null = null) {
    super(message);
    this.status = status;
    this.code = code;
    this.param = param;
  }
}

/** As OpenAI calls it: the key's credit is used up, and asking again does not help. */
const insufficientQuota = 'insufficient_quota';

export function quotaExceeded(): ApiError {
  const message = 'You exceeded your current quota: what this API key may use is used up.';
  return new ApiError(429, insufficientQuota, message);
}

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export function badRequest(code: string, message: string, param: string | null = null): ApiError {
  return new ApiError(400, code, message, param);
}

export function contextExceeded(contextMax: number, prompt: string, param: string): ApiError {
  return badRequest(
    'context_length_exceeded',
    `This model's context is ${contextMax} tokens, prompt and answer together; the prompt has ${prompt}.`,
    param,
  );
}

/** Codes of `TextGenerator.generate` that are the request's own fault, or that pass by themselves. */
const generatorCodes: Readonly<Record<string, readonly [status: ErrorStatus, code: string]>> = {
  'empty-prompt': [400, 'empty_prompt'],
  'bad-token': [400, 'invalid_token'],
  'bad-sampling': [400, 'invalid_value'],
  'context-full': [400, 'context_length_exceeded'],
  busy: [503, 'overloaded'],
  'cache-full': [503, 'overloaded'],
  'no-route': [503, 'no_route'],
  // This node cannot pay those who would answer.
  'payment-required': [402, 'payment_required'],
};

/** Whatever was thrown, as an answer; what is not expected is a failure of ours (500). */
export function apiErrorOf(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof CodedError) {
    const [status, code] = generatorCodes[error.code] ?? [500, error.code.replaceAll('-', '_')];
    return new ApiError(status, code, error.message, status === 400 ? 'prompt' : null);
  }
  return new ApiError(500, 'internal_error', error instanceof Error ? error.message : String(error));
}

export function errorBody(error: ApiError): ErrorBody {
  const { message, param, code } = error;
  return { error: { message, type: typeOf(error), param, code } };
}

export function errorResponse(context: Context, error: ApiError): Response {
  if (error.status === 401) context.header('WWW-Authenticate', 'Bearer');
  if (error.code === insufficientQuota) context.header('x-should-retry', 'false');
  else if (error.status === 429 || error.status === 503)
    context.header('Retry-After', String(retryAfterSeconds));
  return context.json(errorBody(error), error.status);
}

function typeOf({ status, code }: ApiError): string {
  if (code === insufficientQuota) return insufficientQuota;
  switch (status) {
    case 401:
      return 'authentication_error';
    case 429:
      return 'rate_limit_error';
    case 500:
    case 503:
      return 'server_error';
    default:
      return 'invalid_request_error';
  }
}
