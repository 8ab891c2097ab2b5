/** From parameters of the API to requests of the generator: one for each choice. Knows no HTTP. */
import type { TextGenerator, TextRequest } from '../../peer/text-generator.ts';
import type { Random } from '../../std/random.ts';
import type { CommonParameters } from './body.ts';
import { badRequest, contextExceeded } from './errors.ts';
import { charactersPerTokenMax } from './limits.ts';

/** OpenAI takes a `top_p` of 0; the generator does not. This small, only the likeliest token is left. */
const topPMin = 1e-9;

/** Token ids of a text. Throws ApiError 400 for one that leaves no room in the context. */
export function encodePrompt(
  { encode, contextMax }: Pick<TextGenerator, 'encode' | 'contextMax'>,
  text: string,
  param: string,
): readonly number[] {
  if (text.length > contextMax * charactersPerTokenMax)
    throw contextExceeded(contextMax, `${text.length} characters`, param);
  return requireRoom(encode(text), contextMax, param);
}

/** Throws ApiError 400 for a prompt that leaves no room in the context. */
export function requireRoom(prompt: readonly number[], contextMax: number, param: string): readonly number[] {
  if (prompt.length >= contextMax) throw contextExceeded(contextMax, `${prompt.length} tokens`, param);
  return prompt;
}

export interface SamplingWork {
  readonly parameters: CommonParameters;
  readonly prompts: readonly (readonly number[])[];
  /** New tokens of each choice; the context bounds them too. */
  readonly maxTokens: number;
  readonly stop: readonly string[];
  readonly logprobs: number | undefined;
}

/**
 * `n` requests for each prompt, in the order of their choices' indices. Without a seed one is drawn; choice k of a
 * prompt is the same whatever else is asked for with it.
 */
export function textRequests(work: SamplingWork, contextMax: number, random: Random): readonly TextRequest[] {
  const { parameters, prompts, maxTokens, stop, logprobs } = work;
  const { n, temperature, top_p: topP, top_k: topK } = parameters;
  if (parameters.stream_options && !parameters.stream) {
    const message = "'stream_options' is only for requests with 'stream': true.";
    throw badRequest('invalid_value', message, 'stream_options');
  }
  const seed = parameters.seed ?? `${random.uint32()}-${random.uint32()}`;
  return prompts.flatMap((prompt) =>
    Array.from({ length: n }, (_, choice) => ({
      prompt,
      maxTokens: Math.min(maxTokens, contextMax - prompt.length),
      temperature,
      topP: Math.max(topP, topPMin),
      topK,
      seed: choice === 0 ? seed : `${seed}/${choice}`,
      stop,
      ...(logprobs !== undefined && { logprobs }),
    })),
  );
}
