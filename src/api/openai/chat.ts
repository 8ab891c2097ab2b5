/**
 * `POST /v1/chat/completions`: messages through the plain template, and answers in the shapes of a chat.
 * Source: https://platform.openai.com/docs/api-reference/chat
 */
import { z } from 'zod';
import type { TextGenerator, TokenProbability } from '../../peer/text-generator.ts';
import type { Random } from '../../std/random.ts';
import type { AnswerShape, AnswerWork } from './answer.ts';
import { commonParameters, parseBody, refusedByChat } from './body.ts';
import { type ChatMessage, chatPrompt, chatStops } from './chat-template.ts';
import { type Envelope, usageJson } from './envelope.ts';
import { badRequest } from './errors.ts';
import { chatLogprobsMax } from './limits.ts';
import { finiteLogprob, type Piece, type TokenLogprob } from './pieces.ts';
import { encodePrompt, textRequests } from './sampling.ts';

const content = z.union(
  [z.string(), z.array(z.object({ type: z.literal('text'), text: z.string() })).min(1)],
  { error: "expected a text, or parts of type 'text'" },
);

/** Fields beside these (a name, what an earlier answer carried) change nothing, except those that would. */
const message = z.looseObject({
  role: z.enum(['system', 'developer', 'user', 'assistant']),
  content: content.transform((given) =>
    typeof given === 'string' ? given : given.map(({ text }) => text).join(''),
  ),
  tool_calls: z.array(z.never(), { error: 'tools are not supported' }).max(0).nullish(),
  function_call: z.null({ error: 'functions are not supported' }).optional(),
  audio: z.null({ error: 'audio is not supported' }).optional(),
});

const schema = z.strictObject({
  ...commonParameters,
  messages: z.array(message).min(1),
  max_completion_tokens: z.number().int().min(1).optional(),
  logprobs: z.boolean().default(false),
  top_logprobs: z.number().int().min(0).max(chatLogprobsMax).optional(),
});

export type ChatParameters = z.infer<typeof schema>;

/** Throws ApiError 400. */
export function parseChat(body: Readonly<Record<string, unknown>>): ChatParameters {
  const parameters = parseBody(schema, refusedByChat, body);
  if (parameters.top_logprobs !== undefined && !parameters.logprobs)
    throw badRequest('invalid_value', "'top_logprobs' needs 'logprobs': true.", 'top_logprobs');
  return parameters;
}

/** Throws ApiError 400. */
export function chatWork(
  parameters: ChatParameters,
  generator: TextGenerator,
  random: Random,
  envelope: Envelope,
): AnswerWork {
  const messages: readonly ChatMessage[] = parameters.messages;
  const prompt = encodePrompt(generator, chatPrompt(messages), 'messages');
  const sampling = {
    parameters,
    prompts: [prompt],
    maxTokens: parameters.max_completion_tokens ?? parameters.max_tokens ?? generator.contextMax,
    stop: [...parameters.stop, ...chatStops],
    logprobs: parameters.logprobs ? (parameters.top_logprobs ?? 0) : undefined,
  };
  return {
    id: envelope.id,
    requests: textRequests(sampling, generator.contextMax, random),
    promptTokens: prompt.length,
    stream: parameters.stream,
    includeUsage: parameters.stream_options?.include_usage === true,
    trimsStart: true,
    shape: chatShape(parameters, envelope),
  };
}

function chatShape(parameters: ChatParameters, envelope: Envelope): AnswerShape {
  const chunk = (choices: readonly unknown[]) => ({
    ...envelope,
    object: 'chat.completion.chunk',
    choices,
    ...(parameters.stream_options?.include_usage && { usage: null as unknown }),
  });
  const logprobsOf = ({ logprobs }: Piece) =>
    parameters.logprobs ? { content: logprobs.map(tokenJson), refusal: null } : null;
  return {
    opening: () =>
      Array.from({ length: parameters.n }, (_, index) =>
        chunk([{ index, delta: { role: 'assistant', content: '' }, logprobs: null, finish_reason: null }]),
      ),
    chunk: (index, piece) =>
      chunk([
        {
          index,
          delta: piece.text === '' ? {} : { content: piece.text },
          logprobs: piece.logprobs.length > 0 ? logprobsOf(piece) : null,
          finish_reason: piece.finishReason,
        },
      ]),
    usageChunk: (usage) => ({ ...chunk([]), usage: usageJson(usage) }),
    whole: (choices, usage) => ({
      ...envelope,
      object: 'chat.completion',
      choices: choices.map((piece, index) => ({
        index,
        message: { role: 'assistant', content: piece.text, refusal: null },
        logprobs: logprobsOf(piece),
        finish_reason: piece.finishReason,
      })),
      usage: usageJson(usage),
    }),
  };
}

function tokenJson({ chosen, top }: TokenLogprob) {
  const entry = ({ text, logprob, bytes }: TokenProbability) => ({
    token: text,
    logprob: finiteLogprob(logprob),
    bytes: [...bytes],
  });
  return { ...entry(chosen), top_logprobs: top.map(entry) };
}
