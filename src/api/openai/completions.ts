/**
 * `POST /v1/completions`: prompts as texts or token ids, continued as they are.
 * Source: https://platform.openai.com/docs/api-reference/completions
 */
import { z } from 'zod';
import type { TextGenerator, TokenProbability } from '../../peer/text-generator.ts';
import type { Random } from '../../std/random.ts';
import type { AnswerShape, AnswerWork } from './answer.ts';
import { commonParameters, parseBody, refusedByBoth } from './body.ts';
import { type Envelope, usageJson } from './envelope.ts';
import { badRequest } from './errors.ts';
import { completionLogprobsMax, completionTokensDefault } from './limits.ts';
import { finiteLogprob, type Piece } from './pieces.ts';
import { encodePrompt, requireRoom, textRequests } from './sampling.ts';

const tokenIds = z.array(z.number().int().min(0)).min(1);

const schema = z.strictObject({
  ...commonParameters,
  prompt: z.union([z.string(), z.array(z.string()).min(1), tokenIds, z.array(tokenIds).min(1)], {
    error: 'expected a text, texts, token ids or lists of token ids, none of the lists empty',
  }),
  echo: z.boolean().default(false),
  logprobs: z.number().int().min(0).max(completionLogprobsMax).optional(),
});

export type CompletionParameters = z.infer<typeof schema>;

/** Throws ApiError 400. */
export function parseCompletion(body: Readonly<Record<string, unknown>>): CompletionParameters {
  const refused = {
    ...refusedByBoth,
    suffix: (value: unknown) => value === '',
    best_of: (value: unknown) => value === (body.n ?? 1),
  };
  const parameters = parseBody(schema, refused, body);
  if (parameters.echo && parameters.logprobs !== undefined) {
    const message =
      "'echo' with 'logprobs' is not supported: tokens of the prompt have no log probabilities here.";
    throw badRequest('unsupported_parameter', message, 'logprobs');
  }
  return parameters;
}

/** Throws ApiError 400. */
export function completionWork(
  parameters: CompletionParameters,
  generator: TextGenerator,
  random: Random,
  envelope: Envelope,
): AnswerWork {
  const given = promptsOf(parameters.prompt);
  const prompts = given.map((prompt) =>
    typeof prompt === 'string'
      ? encodePrompt(generator, prompt, 'prompt')
      : requireRoom(prompt, generator.contextMax, 'prompt'),
  );
  const sampling = {
    parameters,
    prompts,
    maxTokens: parameters.max_tokens ?? completionTokensDefault,
    stop: parameters.stop,
    logprobs: parameters.logprobs,
  };
  const echoOf = (prompt: string | readonly number[]) =>
    typeof prompt === 'string' ? prompt : generator.decode(prompt);
  return {
    id: envelope.id,
    requests: textRequests(sampling, generator.contextMax, random),
    promptTokens: prompts.reduce((sum, prompt) => sum + prompt.length, 0),
    stream: parameters.stream,
    includeUsage: parameters.stream_options?.include_usage === true,
    trimsStart: false,
    shape: completionShape(parameters, envelope, parameters.echo ? given.map(echoOf) : []),
  };
}

function promptsOf(prompt: CompletionParameters['prompt']): readonly (string | readonly number[])[] {
  if (typeof prompt === 'string') return [prompt];
  const isTokenIds = (given: readonly unknown[]): given is readonly number[] => typeof given[0] === 'number';
  return isTokenIds(prompt) ? [prompt] : prompt;
}

/** `echoes`: the text of each prompt, or none. */
function completionShape(
  parameters: CompletionParameters,
  envelope: Envelope,
  echoes: readonly string[],
): AnswerShape {
  const { n, logprobs: logprobsAsked } = parameters;
  const object = 'text_completion';
  const choice = (index: number, { text, logprobs, finishReason }: Piece) => ({
    index,
    text,
    logprobs: logprobsAsked === undefined ? null : logprobsJson(logprobs),
    finish_reason: finishReason,
  });
  const chunk = (choices: readonly unknown[]) => ({
    ...envelope,
    object,
    choices,
    ...(parameters.stream_options?.include_usage && { usage: null as unknown }),
  });
  const echo = (index: number) => echoes[Math.floor(index / n)] ?? '';
  return {
    opening: () =>
      Array.from({ length: n * echoes.length }, (_, index) =>
        chunk([choice(index, { text: echo(index), logprobs: [], finishReason: null })]),
      ),
    chunk: (index, piece) => chunk([choice(index, piece)]),
    usageChunk: (usage) => ({ ...chunk([]), usage: usageJson(usage) }),
    whole: (choices, usage) => ({
      ...envelope,
      object,
      choices: choices.map((piece, index) => choice(index, { ...piece, text: echo(index) + piece.text })),
      usage: usageJson(usage),
    }),
  };
}

function logprobsJson(logprobs: Piece['logprobs']) {
  return {
    tokens: logprobs.map(({ chosen }) => tokenText(chosen)),
    token_logprobs: logprobs.map(({ chosen }) => finiteLogprob(chosen.logprob)),
    // The chosen token is always among them.
    top_logprobs: logprobs.map(({ chosen, top }) => topJson([...top, chosen])),
    text_offset: logprobs.map(({ offset }) => offset),
  };
}

function topJson(tokens: readonly TokenProbability[]): Record<string, number> {
  return Object.fromEntries(tokens.map((token) => [tokenText(token), finiteLogprob(token.logprob)]));
}

/** A part of a character has no text: its bytes are written out, as OpenAI does. */
function tokenText({ text, bytes }: TokenProbability): string {
  if (!text.includes('\ufffd')) return text;
  return `bytes:${Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, '0')}`).join('')}`;
}
