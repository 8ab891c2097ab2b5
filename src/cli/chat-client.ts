/**
 * A node's OpenAI-compatible routes from the other side: which model answers, and one answer as it comes. The node may
 * be anybody's: what it sends is checked and bounded. Knows no terminal.
 */
import { z } from 'zod';
import { CodedError } from '../std/outcome.ts';

export interface Message {
  readonly role: 'system' | 'user' | 'assistant';
  readonly content: string;
}

export interface NodeAddress {
  /** Without a slash at the end and without `/v1`. */
  readonly url: string;
  readonly apiKey?: string;
}

export interface AnswerSettings {
  readonly model: string;
  readonly maxTokens?: number;
  readonly temperature: number;
  readonly topP: number;
  readonly seed?: number;
}

export interface AnswerEnd {
  readonly finishReason: string | null;
  readonly usage: { readonly promptTokens: number; readonly completionTokens: number } | null;
  readonly fingerprint: string | null;
}

const modelsTimeoutMs = 5_000;
/** No line of a stream and no error is longer. */
const lineCharactersMax = 1 << 20;

const modelList = z.object({ data: z.array(z.object({ id: z.string() })) });
const errorDocument = z.object({ error: z.object({ message: z.string(), code: z.string().nullish() }) });
const chunkDocument = z.object({
  system_fingerprint: z.string().nullish(),
  choices: z.array(
    z.object({
      delta: z.object({ content: z.string().nullish() }),
      finish_reason: z.string().nullish(),
    }),
  ),
  usage: z.object({ prompt_tokens: z.number(), completion_tokens: z.number() }).nullish(),
});

/** The models that a node offers. Throws CodedError `no-node`, `not-a-node` or `unauthorized`. */
export async function listModels(node: NodeAddress, signal: AbortSignal): Promise<readonly string[]> {
  const either = AbortSignal.any([signal, AbortSignal.timeout(modelsTimeoutMs)]);
  const response = await ask(node, '/v1/models', { signal: either }, signal);
  if (response.status === 401) throw await failureOf(node, response);
  const listed = modelList.safeParse(await response.json().catch(() => undefined));
  if (!response.ok || !listed.success || listed.data.data.length === 0) {
    throw new CodedError('not-a-node', `what answers at ${node.url} is not a node that answers prompts`);
  }
  return listed.data.data.map(({ id }) => id);
}

/**
 * Pieces of the answer to a conversation, then how it ended. Throws the signal's reason when aborted, else CodedError:
 * those of `listModels`, `unknown-model`, `context-full`, `busy`, `refused` (the node's own words), `answer-broken`.
 */
export async function* streamAnswer(
  node: NodeAddress,
  messages: readonly Message[],
  settings: AnswerSettings,
  signal: AbortSignal,
): AsyncGenerator<string, AnswerEnd, void> {
  const body = JSON.stringify({
    model: settings.model,
    messages,
    temperature: settings.temperature,
    top_p: settings.topP,
    max_tokens: settings.maxTokens,
    seed: settings.seed,
    stream: true,
    stream_options: { include_usage: true },
  });
  const headers = { 'Content-Type': 'application/json' };
  const response = await ask(node, '/v1/chat/completions', { method: 'POST', headers, body, signal }, signal);
  if (!response.ok || !response.body) throw await failureOf(node, response);
  let end: AnswerEnd = { finishReason: null, usage: null, fingerprint: null };
  for await (const data of eventData(node, response.body, signal)) {
    if (data === '[DONE]') return end;
    const chunk = readChunk(node, data);
    const choice = chunk.choices[0];
    const { usage } = chunk;
    end = {
      finishReason: choice?.finish_reason ?? end.finishReason,
      usage: usage
        ? { promptTokens: usage.prompt_tokens, completionTokens: usage.completion_tokens }
        : end.usage,
      fingerprint: chunk.system_fingerprint ?? end.fingerprint,
    };
    if (choice?.delta.content) yield choice.delta.content;
  }
  throw broken(node, 'it ended in the middle');
}

async function ask(
  node: NodeAddress,
  path: string,
  init: RequestInit,
  signal: AbortSignal,
): Promise<Response> {
  const headers = { ...init.headers, ...(node.apiKey && { Authorization: `Bearer ${node.apiKey}` }) };
  try {
    return await fetch(`${node.url}${path}`, { ...init, headers });
  } catch (error) {
    signal.throwIfAborted();
    const advice = 'is it running, and is this its API port?';
    throw new CodedError('no-node', `no node answers at ${node.url}: ${advice}`, { cause: error });
  }
}

/** The data of each event: lines `data: …`; the routes send one line for each. */
async function* eventData(
  node: NodeAddress,
  body: ReadableStream<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<string, void, void> {
  const decoder = new TextDecoder();
  let rest = '';
  try {
    for await (const bytes of body) {
      rest += decoder.decode(bytes, { stream: true });
      const lines = rest.split('\n');
      rest = lines.pop()!;
      if (rest.length > lineCharactersMax) throw broken(node, 'a line is too long');
      for (const line of lines) if (line.startsWith('data:')) yield line.slice(5).trim();
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof CodedError) throw error;
    throw broken(node, 'the connection was lost', error);
  }
}

function readChunk(node: NodeAddress, data: string): z.infer<typeof chunkDocument> {
  let json: unknown;
  try {
    json = JSON.parse(data);
  } catch (error) {
    throw broken(node, 'it is not JSON', error);
  }
  const failed = errorDocument.safeParse(json);
  if (failed.success) throw broken(node, failed.data.error.message);
  const chunk = chunkDocument.safeParse(json);
  if (!chunk.success) throw broken(node, 'it has another form');
  return chunk.data;
}

function broken(node: NodeAddress, why: string, cause?: unknown): CodedError {
  const message = `the answer of ${node.url} broke off: ${oneLine(why)}`;
  return new CodedError('answer-broken', message, cause ? { cause } : undefined);
}

const codeOfStatus: Readonly<Record<number, string>> = {
  401: 'unauthorized',
  404: 'unknown-model',
  429: 'busy',
  503: 'busy',
};

const codeOfCode: Readonly<Record<string, string>> = {
  context_length_exceeded: 'context-full',
  insufficient_quota: 'quota-used-up',
  payment_required: 'payment-required',
};

async function failureOf({ url }: NodeAddress, response: Response): Promise<CodedError> {
  const read = errorDocument.safeParse(await response.json().catch(() => undefined));
  if (!read.success)
    return new CodedError('not-a-node', `what answers at ${url} is not a node that answers prompts`);
  if (response.status === 401) {
    const advice = 'give one with --api-key or NEUROSHARD_API_KEY';
    return new CodedError('unauthorized', `the node at ${url} wants another API key: ${advice}`);
  }
  const { message, code } = read.data.error;
  const ours = codeOfCode[code ?? ''] ?? codeOfStatus[response.status];
  return new CodedError(ours ?? 'refused', `${url} says: ${oneLine(message)}`);
}

function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\s]+/gu, ' ').slice(0, 300);
}
