/**
 * Choosing the next token from logits, and noticing stop sequences. Randomness is handed in and the arithmetic is
 * bit-equal everywhere, so a seed replays on any machine given equal logits. It knows no model and no tokenizer.
 */
import { z } from 'zod';
import { AssertionError } from '../std/assert.ts';
import { utf8 } from '../std/bytes.ts';
import { exponential } from '../std/elementary.ts';
import { taggedHash } from '../std/hash.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';
import { type Random, seededRandom, uniform } from '../std/random.ts';

export interface SamplingOptions {
  /** 0 is greedy: the largest logit, the lowest id among equals. */
  readonly temperature: number;
  /** Only the k largest logits; 0 means all. */
  readonly topK: number;
  /** The smallest set of likeliest tokens whose probabilities reach this sum, in (0, 1]. */
  readonly topP: number;
}

export const greedy: SamplingOptions = { temperature: 0, topK: 0, topP: 1 };

const samplingSchema = z.strictObject({
  temperature: z.number().min(0).max(100).default(1),
  topK: z.number().int().min(0).max(4_194_304).default(0),
  topP: z.number().gt(0).max(1).default(1),
});

/** Validates options from outside, filling in temperature 1, all tokens. The only code is `bad-sampling`. */
export function parseSamplingOptions(json: unknown): Outcome<SamplingOptions> {
  const parsed = samplingSchema.safeParse(json);
  if (parsed.success) return accept(parsed.data);
  const issue = parsed.error.issues[0];
  return reject('bad-sampling', `${issue?.path.join('.')}: ${issue?.message}`);
}

/** The random stream of a request's seed. */
export function samplingRandom(seed: number | bigint | string): Random {
  return seededRandom(taggedHash('neuroshard/sampling/1', utf8(String(seed))));
}

/**
 * Draws a token id from logits [V]. One draw of `random` unless greedy. Throws CodedError `bad-logits` when one is NaN
 * or no logit is finite.
 */
export function sampleToken(logits: Float32Array, options: SamplingOptions, random: Random): number {
  const best = argmax(logits);
  if (options.temperature === 0) return best;
  const candidates = likeliest(logits, options);
  const largest = logits[best]!;
  // Divided by the temperature after subtraction, so that tiny temperatures cannot overflow to Infinity − Infinity.
  const weights = Float64Array.from(candidates, (id) =>
    weight((logits[id]! - largest) / options.temperature),
  );
  const kept = nucleus(weights, options.topP);
  const threshold = uniform(random) * kept.total;
  let sum = 0;
  for (let i = 0; i < kept.count; i++) {
    sum += weights[i]!;
    if (sum > threshold) return candidates[i]!;
  }
  // The same additions in the same order gave the total, and the draw is below 1.
  throw new AssertionError('no token reached the threshold');
}

function weight(exponent: number): number {
  return exponent < -690 ? 0 : exponential(exponent);
}

function argmax(logits: Float32Array): number {
  let best = -1;
  let largest = Number.NEGATIVE_INFINITY;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id]!;
    if (Number.isNaN(logit)) throw new CodedError('bad-logits', `the logit of token ${id} is not a number`);
    if (logit > largest) {
      largest = logit;
      best = id;
    }
  }
  if (best < 0 || largest === Number.POSITIVE_INFINITY)
    throw new CodedError('bad-logits', 'no finite largest logit');
  return best;
}

/** Token ids in play: sorted by falling logit (then rising id) when top-k or top-p needs the order. */
function likeliest(logits: Float32Array, { topK, topP }: SamplingOptions): Uint32Array {
  const ids = Uint32Array.from(logits, (_, id) => id);
  if (topK === 0 && topP === 1) return ids;
  ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  return topK > 0 ? ids.subarray(0, topK) : ids;
}

/** How many leading weights (sorted, unless topP is 1) reach `topP` of the sum, and their sum. */
function nucleus(weights: Float64Array, topP: number): { readonly count: number; readonly total: number } {
  let sum = 0;
  for (const value of weights) sum += value;
  if (topP === 1) return { count: weights.length, total: sum };
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    total += weights[i]!;
    if (total >= topP * sum) return { count: i + 1, total };
  }
  return { count: weights.length, total };
}

/** Watches a stream for stop sequences that may begin in one piece and end in another. */
export interface StopMatcher<T> {
  /** What of the stream so far is now known to be no part of a stop sequence; nothing after a stop. */
  push(piece: T): { readonly emit: T; readonly stopped: boolean };
  /** What was held back, when the stream ends without a stop. */
  flush(): T;
}

/** Stop sequences of token ids. The first to end wins (the longest of those); it and what follows are not emitted. */
export function tokenStopMatcher(stops: readonly (readonly number[])[]): StopMatcher<readonly number[]> {
  if (stops.some((stop) => stop.length === 0))
    throw new CodedError('bad-sampling', 'a stop sequence is empty');
  let held: number[] = [];
  let stopped = false;
  return {
    push(piece) {
      const emit: number[] = [];
      for (const symbol of piece) {
        if (stopped) break;
        held.push(symbol);
        const complete = longest(
          stops.filter((stop) => endsWith(held, stop, stop.length)).map(({ length }) => length),
        );
        stopped = complete > 0;
        const keep = stopped ? complete : longest(stops.map((stop) => beginningAtEnd(held, stop)));
        emit.push(...held.splice(0, held.length - keep));
        if (stopped) held = [];
      }
      return { emit, stopped };
    },
    flush: () => held.splice(0),
  };
}

function longest(lengths: readonly number[]): number {
  return Math.max(0, ...lengths);
}

/** Whether `held` ends with the first `length` symbols of `stop`. */
function endsWith(held: readonly number[], stop: readonly number[], length: number): boolean {
  if (length > held.length) return false;
  for (let i = 0; i < length; i++) if (held[held.length - length + i] !== stop[i]) return false;
  return true;
}

/** Length of the longest beginning of `stop`, less than all of it, that `held` ends with. */
function beginningAtEnd(held: readonly number[], stop: readonly number[]): number {
  for (let length = stop.length - 1; length > 0; length--) if (endsWith(held, stop, length)) return length;
  return 0;
}

/** Stop sequences of text, compared by code point. */
export function textStopMatcher(stops: readonly string[]): StopMatcher<string> {
  const encode = (text: string) => Array.from(text, (character) => character.codePointAt(0)!);
  const decode = (codes: readonly number[]) => codes.map((code) => String.fromCodePoint(code)).join('');
  const matcher = tokenStopMatcher(stops.map(encode));
  return {
    push(piece) {
      const { emit, stopped } = matcher.push(encode(piece));
      return { emit: decode(emit), stopped };
    },
    flush: () => decode(matcher.flush()),
  };
}
