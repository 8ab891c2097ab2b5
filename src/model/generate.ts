/**
 * Generation with the whole model on one engine: prefill, then decode and sample token by token. Tokens in, tokens
 * out; it knows no text, no network and no stages other than the whole.
 */
import { CodedError } from '../std/outcome.ts';
import type { Random } from '../std/random.ts';
import type { Engine } from '../tensor/engine.ts';
import type { ModelConfig } from './config.ts';
import { wholeModel } from './parameters.ts';
import { type SamplingOptions, sampleToken, tokenStopMatcher } from './sampler.ts';
import { createStageDecoder, type StageSession } from './stage-decoder.ts';

export interface DecoderOptions {
  readonly engine: Engine;
  readonly config: ModelConfig;
  /** Views of every parameter by name; whoever changes them must pause generation. */
  readonly parameters: (name: string) => Float32Array;
  readonly capacity?: number;
  readonly prefillChunk?: number;
}

export interface GenerateOptions {
  /** At least one token. */
  readonly prompt: readonly number[];
  readonly sampling: SamplingOptions;
  readonly random: Random;
  /** New tokens at most; the context bounds them too. */
  readonly maxTokens: number;
  /** Sequences of token ids that end generation and are not emitted; an end-of-text token is `[id]`. */
  readonly stop?: readonly (readonly number[])[];
  readonly signal?: AbortSignal;
}

/** Why it ended: a stop sequence, or `maxTokens` or the context ran out. */
export type FinishReason = 'stop' | 'length';

export interface Decoder {
  readonly capacity: number;
  session(): StageSession;
  /**
   * Yields token ids and returns why it ended. Tokens that may begin a stop sequence are held back until that is
   * decided. Throws CodedError `context-full` for a prompt that leaves no room, `empty-prompt`, `bad-token`,
   * `bad-logits`, and the signal's reason when aborted.
   */
  generate(options: GenerateOptions): AsyncGenerator<number, FinishReason, void>;
  close(): Promise<void>;
}

export async function createDecoder(options: DecoderOptions): Promise<Decoder> {
  const decoder = await createStageDecoder({ ...options, stage: wholeModel(options.config) });
  return {
    capacity: decoder.capacity,
    session: () => decoder.session(),
    generate: (request) => generate(decoder.session(), decoder.capacity, request),
    close: () => decoder.close(),
  };
}

/** A continuation of `request.prompt` through a fresh session; see `Decoder.generate`. */
async function* generate(
  session: StageSession,
  capacity: number,
  request: GenerateOptions,
): AsyncGenerator<number, FinishReason, void> {
  const { prompt, sampling, random, maxTokens, stop = [], signal } = request;
  if (prompt.length === 0) throw new CodedError('empty-prompt', 'the prompt holds no token');
  if (prompt.length >= capacity) {
    throw new CodedError('context-full', `a prompt of ${prompt.length} tokens leaves no room in ${capacity}`);
  }
  for (const token of prompt) {
    if (!Number.isInteger(token)) throw new CodedError('bad-token', `token ${token} is not an integer`);
  }
  const matcher = tokenStopMatcher(stop);
  const budget = Math.min(maxTokens, capacity - prompt.length);
  let entry = Int32Array.from(prompt);
  for (let made = 0; made < budget; made++) {
    signal?.throwIfAborted();
    const logits = await session.append(entry, signal);
    const token = sampleToken(logits, sampling, random);
    const { emit, stopped } = matcher.push([token]);
    yield* emit;
    if (stopped) return 'stop';
    entry = Int32Array.of(token);
  }
  yield* matcher.flush();
  return 'length';
}
