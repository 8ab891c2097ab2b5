/** What every answer and every chunk of one carries: id, time, model, and which weights it was made with. */
import type { TokenUsage } from '../../peer/text-generator.ts';
import type { Random } from '../../std/random.ts';

export interface Envelope {
  readonly id: string;
  /** Seconds since the Unix epoch. */
  readonly created: number;
  readonly model: string;
  /** Changes with the weights: round and state hash. */
  readonly system_fingerprint: string;
}

export function usageJson({ promptTokens, completionTokens }: TokenUsage) {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
  };
}

/** 96 random bits in hex after the prefix. */
export function randomId(prefix: string, random: Random): string {
  const words = Array.from({ length: 3 }, () => random.uint32().toString(16).padStart(8, '0'));
  return `${prefix}${words.join('')}`;
}
