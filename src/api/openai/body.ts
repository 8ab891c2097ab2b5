/**
 * What both text routes share of a request's body: JSON, the parameters of sampling, and errors that name the parameter.
 * A parameter this node cannot honour is refused rather than ignored, unless its value asks for nothing.
 */
import type { Context } from 'hono';
import { z } from 'zod';
import { ApiError, badRequest } from './errors.ts';
import { choicesPerPromptMax, stopLengthMax, stopsMax } from './limits.ts';

const stopText = z.string().min(1).max(stopLengthMax);

/** Parameters that mean the same to both routes. `top_k` is no parameter of OpenAI's. */
export const commonParameters = {
  model: z.string().min(1),
  temperature: z.number().min(0).max(2).default(1),
  top_p: z.number().min(0).max(1).default(1),
  top_k: z.number().int().min(0).max(4_194_304).default(0),
  n: z.number().int().min(1).max(choicesPerPromptMax).default(1),
  seed: z.number().int().optional(),
  stop: z
    .union([stopText, z.array(stopText).max(stopsMax)], {
      error: `expected a text, or at most ${stopsMax}, of 1 to ${stopLengthMax} characters each`,
    })
    .transform((stop) => (typeof stop === 'string' ? [stop] : stop))
    .default([]),
  max_tokens: z.number().int().min(1).optional(),
  stream: z.boolean().default(false),
  stream_options: z
    .strictObject({ include_usage: z.boolean().nullish(), include_obfuscation: z.boolean().nullish() })
    .optional(),
};

/** What sampling needs of a parsed body. */
export type CommonParameters = z.infer<z.ZodObject<typeof commonParameters>>;

/** Parameters that are known and not offered, each with whether a value asks for nothing. */
export type Refused = Readonly<Record<string, (value: unknown) => boolean>>;

const isEmpty = (value: unknown) =>
  typeof value === 'object' && value !== null && Object.keys(value).length === 0;
const oneOf =
  (...neutral: readonly unknown[]) =>
  (value: unknown) =>
    neutral.includes(value);

export const refusedByBoth: Refused = {
  logit_bias: isEmpty,
  presence_penalty: oneOf(0),
  frequency_penalty: oneOf(0),
};

export const refusedByChat: Refused = {
  ...refusedByBoth,
  tools: isEmpty,
  functions: isEmpty,
  tool_choice: oneOf('none', 'auto'),
  function_call: oneOf('none', 'auto'),
  response_format: (value) => isTyped(value) && value.type === 'text',
  modalities: (value) => Array.isArray(value) && value.every((each) => each === 'text'),
  audio: () => false,
  prediction: () => false,
  web_search_options: () => false,
  reasoning_effort: oneOf('none'),
  verbosity: oneOf('medium'),
  store: oneOf(false),
  service_tier: oneOf('auto', 'default'),
};

/** What changes no answer: taken and not looked at. */
const ignored = [
  'user',
  'metadata',
  'safety_identifier',
  'prompt_cache_key',
  'prompt_cache_retention',
  'parallel_tool_calls',
];

/** The JSON object of a request. Throws ApiError 400 or 415. */
export async function readJson(context: Context): Promise<Record<string, unknown>> {
  // A page of another origin can post anything else without asking this server first.
  const type = context.req.header('Content-Type')?.split(';')[0]?.trim().toLowerCase();
  if (type !== 'application/json') {
    throw new ApiError(
      415,
      'unsupported_media_type',
      'The body must be sent as Content-Type: application/json.',
    );
  }
  let body: unknown;
  try {
    body = JSON.parse(await context.req.text());
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    throw badRequest('invalid_json', `The body is not valid JSON: ${detail}`);
  }
  if (typeof body !== 'object' || body === null || Array.isArray(body))
    throw badRequest('invalid_type', 'The body must be a JSON object.');
  return body as Record<string, unknown>;
}

/** Checks a body; null means absent. Throws ApiError 400 that names the first parameter at fault. */
export function parseBody<Schema extends z.ZodType>(
  schema: Schema,
  refused: Refused,
  body: Readonly<Record<string, unknown>>,
): z.infer<Schema> {
  const given: [name: string, value: unknown][] = [];
  for (const [name, value] of Object.entries(body)) {
    if (value === null || ignored.includes(name)) continue;
    const isNeutral = Object.hasOwn(refused, name) ? refused[name] : undefined;
    if (isNeutral === undefined) given.push([name, value]);
    else if (!isNeutral(value))
      throw badRequest('unsupported_parameter', `'${name}' is not supported by this node.`, name);
  }
  const parsed = schema.safeParse(Object.fromEntries(given));
  if (!parsed.success) throw issueError(parsed.error.issues[0]!, body);
  return parsed.data;
}

function issueError(issue: z.core.$ZodIssue, body: unknown): ApiError {
  if (issue.code === 'unrecognized_keys') {
    const param = pathText([...issue.path, issue.keys[0]!]);
    return badRequest(
      'unknown_parameter',
      `Unrecognized request argument: '${param.slice(0, 100)}'.`,
      param.slice(0, 100),
    );
  }
  const param = pathText(issue.path);
  const isMissing = valueAt(body, issue.path) === undefined;
  if (isMissing)
    return badRequest('missing_required_parameter', `Missing required parameter: '${param}'.`, param);
  const code =
    issue.code === 'invalid_type' || issue.code === 'invalid_union' ? 'invalid_type' : 'invalid_value';
  return badRequest(code, `Invalid '${param}': ${issue.message}.`, param);
}

/** `messages[0].role`. */
function pathText(path: readonly PropertyKey[]): string {
  return path
    .map((key, depth) => (typeof key === 'number' ? `[${key}]` : `${depth > 0 ? '.' : ''}${String(key)}`))
    .join('');
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  let at = value;
  for (const key of path) at = typeof at === 'object' && at !== null ? Reflect.get(at, key) : undefined;
  return at;
}

function isTyped(value: unknown): value is { readonly type: unknown } {
  return typeof value === 'object' && value !== null && 'type' in value;
}
