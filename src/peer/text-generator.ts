/**
 * Text from the model, as the HTTP routes and the CLI see it: a request in tokens, a stream of tokens back. It does not
 * know whether one process or many stages answer; `generate.ts` is the one that asks the stages.
 */

export interface TextRequest {
  /** Token ids as they enter the model; `encode` makes them of a text. At least one. */
  readonly prompt: readonly number[];
  /** New tokens at most, at least 1; the context bounds them too. */
  readonly maxTokens: number;
  /** 0 is greedy. */
  readonly temperature: number;
  /** In (0, 1]. */
  readonly topP: number;
  /** Only the k likeliest; 0 (the default) means all. */
  readonly topK?: number;
  /** Equal seeds, requests and weights give equal tokens. */
  readonly seed: number | string;
  /** Texts that end it and are not given, none of them empty; at most `stopsMax` of at most `stopLengthMax` characters. */
  readonly stop: readonly string[];
  /**
   * Log probabilities are asked for, with this many of the likeliest tokens (0: only the chosen one), at most
   * `logprobsMax`.
   */
  readonly logprobs?: number;
}

export const stopsMax = 16;
export const stopLengthMax = 256;
export const logprobsMax = 20;

/** A token and its natural logarithm of probability: softmax of the logits, before temperature, top-k and top-p. */
export interface TokenProbability {
  readonly token: number;
  /** What the token says alone; U+FFFD where it is a part of a character. */
  readonly text: string;
  readonly bytes: Uint8Array;
  readonly logprob: number;
}

export interface GeneratedToken {
  readonly kind: 'token';
  readonly token: number;
  /**
   * What the stream gains: empty while a character is unfinished or a stop sequence may have begun, and then with what
   * was held back. The texts of all parts, joined, are the answer.
   */
  readonly text: string;
  /** Only when asked for. */
  readonly chosen?: TokenProbability;
  /** Likeliest first; only when asked for. */
  readonly top?: readonly TokenProbability[];
}

/** `stop`: a stop sequence or the end-of-text token; `length`: maxTokens or the context ran out. */
export type FinishReason = 'stop' | 'length';

export interface TokenUsage {
  readonly promptTokens: number;
  /** Every token drawn, those of the stop sequence and the end-of-text token too. */
  readonly completionTokens: number;
}

/** The last part of every stream that does not throw. */
export interface GenerationEnd {
  readonly kind: 'end';
  readonly finishReason: FinishReason;
  /** What was still held back. */
  readonly text: string;
  readonly usage: TokenUsage;
}

export type GenerationPart = GeneratedToken | GenerationEnd;

export interface TextGenerator {
  /** What `/v1/models` calls the model. */
  readonly model: string;
  /** Longest sequence in tokens: prompt and answer together. */
  readonly contextMax: number;
  /** The prompt of a text: the token that every text begins with, where the model has one, and the text's own ids. */
  encode(text: string): readonly number[];
  /** The text of token ids, special tokens left out. */
  decode(tokens: readonly number[]): string;
  /**
   * Token parts in order, then one `end`. Abandoning the iteration (return or throw) and aborting the signal both end
   * the sessions at every stage; an aborted stream throws the signal's reason.
   *
   * Throws CodedError, before the first part or in place of a later one:
   * `empty-prompt`, `bad-token`, `bad-sampling`, `context-full` (the prompt leaves no room): the request's own fault;
   * `busy` and `cache-full` (no stage has room for another session now), `no-route` (a stage has no replica that
   * answers): try again later; `round-gone` (the answer lasted longer than its weights are kept), `bad-logits`: ended.
   */
  generate(request: TextRequest, signal?: AbortSignal): AsyncGenerator<GenerationPart, void, void>;
}
