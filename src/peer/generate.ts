/**
 * The journey of a prompt: validate → open a session at every stage → prefill → sample → stream → decode, until it ends.
 * Failovers are the session's affair; only when the weights it is pinned to are gone everywhere does the text go on with
 * newer ones. It knows no HTTP, and no stages but through the session.
 */
import type { Tokenizer } from '../genesis/tokenizer.ts';
import type { ModelConfig } from '../model/config.ts';
import { logProbabilities, type TokenLogProbability } from '../model/log-probabilities.ts';
import {
  parseSamplingOptions,
  type SamplingOptions,
  type StopMatcher,
  sampleToken,
  samplingRandom,
  textStopMatcher,
} from '../model/sampler.ts';
import type { DecodeClient, DecodeSession } from '../pipeline/decode-client.ts';
import { CodedError } from '../std/outcome.ts';
import {
  type FinishReason,
  type GeneratedToken,
  type GenerationEnd,
  type GenerationPart,
  logprobsMax,
  stopLengthMax,
  stopsMax,
  type TextGenerator,
  type TextRequest,
  type TokenProbability,
} from './text-generator.ts';

export interface TextGeneratorOptions {
  /** What the model is called. */
  readonly model: string;
  readonly config: ModelConfig;
  readonly client: DecodeClient;
  readonly tokenizer: Pick<Tokenizer, 'encode' | 'decode' | 'decoder' | 'tokenBytes' | 'endOfText'>;
  /** Texts written at once; 256 by default. */
  readonly generationsMax?: number;
}

/** Sessions of one text: each begins again with all that was written so far. */
const sessionsMax = 4;

export function createTextGenerator(options: TextGeneratorOptions): TextGenerator {
  const { model, config, client, tokenizer, generationsMax = 256 } = options;
  let running = 0;
  return {
    model,
    contextMax: config.context,
    encode: (text) => [tokenizer.endOfText, ...tokenizer.encode(text)],
    decode: (tokens) => tokenizer.decode(tokens),
    async *generate(request, signal) {
      const sampling = checkRequest(request, config);
      if (running >= generationsMax) throw new CodedError('busy', `${running} texts are being written`);
      running += 1;
      const text = openText(client, request, signal);
      try {
        yield* writeText(text, sampling, request, tokenizer);
      } finally {
        running -= 1;
        void text.close();
      }
    },
  };
}

/** Throws CodedError `empty-prompt`, `context-full`, `bad-token`, `bad-sampling`. */
function checkRequest(request: TextRequest, config: ModelConfig): SamplingOptions {
  const { prompt, maxTokens, temperature, topP, topK = 0, stop, logprobs = 0 } = request;
  if (prompt.length === 0) throw new CodedError('empty-prompt', 'the prompt holds no token');
  if (prompt.length >= config.context)
    throw new CodedError(
      'context-full',
      `a prompt of ${prompt.length} tokens leaves no room in ${config.context}`,
    );
  const wrong = prompt.find((token) => !Number.isInteger(token) || token < 0 || token >= config.vocabulary);
  if (wrong !== undefined) throw new CodedError('bad-token', `token ${wrong} of ${config.vocabulary}`);
  const problem = !(Number.isInteger(maxTokens) && maxTokens >= 1)
    ? 'maxTokens must be a whole number from 1 on'
    : stop.length > stopsMax || stop.some((text) => text.length === 0 || text.length > stopLengthMax)
      ? `at most ${stopsMax} stop sequences of 1 to ${stopLengthMax} characters`
      : !(Number.isInteger(logprobs) && logprobs >= 0 && logprobs <= logprobsMax)
        ? `logprobs must be a whole number from 0 to ${logprobsMax}`
        : undefined;
  if (problem) throw new CodedError('bad-sampling', problem);
  const sampling = parseSamplingOptions({ temperature, topP, topK });
  if (!sampling.ok) throw new CodedError(sampling.code, sampling.detail);
  return sampling.value;
}

/** A text under way: everything so far, and the session that has it. */
interface Text {
  /** Logits after the prompt, then after one token more each time. */
  next(token?: number): Promise<Float32Array>;
  /** Tokens that still fit. */
  room(): number;
  close(): Promise<void>;
}

function openText(client: DecodeClient, { prompt }: TextRequest, signal: AbortSignal | undefined): Text {
  const tokens = [...prompt];
  let session: DecodeSession | undefined;
  let sessions = 0;
  const close = async () => {
    const old = session;
    session = undefined;
    await old?.close();
  };
  return {
    async next(token) {
      if (token !== undefined) tokens.push(token);
      for (;;) {
        signal?.throwIfAborted();
        if (!session) sessions += 1;
        session ??= await client.open(signal);
        try {
          return await session.append(Int32Array.from(tokens.slice(session.length)), signal);
        } catch (error) {
          const isOver = !(error instanceof CodedError && error.code === 'round-gone');
          if (isOver || sessions >= sessionsMax) throw error;
          // Nobody has the weights it began with any more: it goes on with newer ones.
          void close();
        }
      }
    },
    room: () => (session?.capacity ?? 0) - tokens.length,
    close,
  };
}

async function* writeText(
  text: Text,
  sampling: SamplingOptions,
  request: TextRequest,
  tokenizer: TextGeneratorOptions['tokenizer'],
): AsyncGenerator<GenerationPart, void, void> {
  const random = samplingRandom(request.seed);
  const decoder = tokenizer.decoder();
  const stops: StopMatcher<string> = textStopMatcher(request.stop);
  let completionTokens = 0;
  const end = (finishReason: FinishReason): GenerationEnd => ({
    kind: 'end',
    finishReason,
    text: finishReason === 'stop' && isStopped ? '' : stops.push(decoder.end()).emit + stops.flush(),
    usage: { promptTokens: request.prompt.length, completionTokens },
  });
  let isStopped = false;
  let logits = await text.next();
  for (;;) {
    const token = sampleToken(logits, sampling, random);
    completionTokens += 1;
    if (token === tokenizer.endOfText) return yield end('stop');
    const { emit, stopped } = stops.push(decoder.push(token));
    isStopped = stopped;
    yield { kind: 'token', token, text: emit, ...probabilities(logits, token, request, tokenizer) };
    if (stopped) return yield end('stop');
    if (completionTokens >= request.maxTokens || text.room() <= 1) return yield end('length');
    logits = await text.next(token);
  }
}

function probabilities(
  logits: Float32Array,
  token: number,
  { logprobs }: TextRequest,
  tokenizer: TextGeneratorOptions['tokenizer'],
): Pick<GeneratedToken, 'chosen' | 'top'> {
  if (logprobs === undefined) return {};
  const { chosen, top } = logProbabilities(logits, token, logprobs);
  const named = (each: TokenLogProbability): TokenProbability => ({
    ...each,
    text: tokenizer.decode([each.token]),
    bytes: tokenizer.tokenBytes(each.token),
  });
  return { chosen: named(chosen), top: top.map(named) };
}
