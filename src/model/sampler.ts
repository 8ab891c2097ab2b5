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
  const chances = { logits, largest: logits[best]!, temperature: options.temperature };
  const kept = options.topK === 0 && options.topP === 1 ? everyToken(chances) : likeliest(chances, options);
  const threshold = uniform(random) * kept.total;
  let sum = 0;
  for (let i = 0; i < kept.weights.length; i++) {
    sum += kept.weights[i]!;
    if (sum > threshold) return kept.ids ? kept.ids[i]! : i;
  }
  // The same additions in the same order gave the total, and the draw is below 1.
  throw new AssertionError('no token reached the threshold');
}

interface Chances {
  readonly logits: Float32Array;
  readonly largest: number;
  readonly temperature: number;
}

/** What is drawn from: weights with their sum, in the order of `ids`, or of the vocabulary without. */
interface Kept {
  readonly ids?: Uint32Array;
  readonly weights: Float64Array;
  readonly total: number;
}

function weight({ logits, largest, temperature }: Chances, id: number): number {
  // Divided by the temperature after subtraction, so that tiny temperatures cannot overflow to Infinity − Infinity.
  const exponent = (logits[id]! - largest) / temperature;
  return exponent < -690 ? 0 : exponential(exponent);
}

function everyToken(chances: Chances): Kept {
  const weights = new Float64Array(chances.logits.length);
  let total = 0;
  for (let id = 0; id < weights.length; id++) {
    weights[id] = weight(chances, id);
    total += weights[id]!;
  }
  return { weights, total };
}

/**
 * The k likeliest, and of them the smallest set that reaches `topP` of their weight. Only tokens near the largest logit
 * are sorted, and more of them when these do not suffice: sorting a vocabulary takes longer than a small model.
 */
function likeliest(chances: Chances, { topK, topP }: SamplingOptions): Kept {
  const { logits, largest, temperature } = chances;
  const wanted = topK === 0 ? logits.length : Math.min(topK, logits.length);
  const whole = topK === 0 ? everyToken(chances).total : undefined;
  for (let reach = 4 * Math.min(temperature, 1); ; reach *= 2) {
    const floor = reach > 1e4 ? Number.NEGATIVE_INFINITY : largest - reach;
    const ids = idsFrom(logits, floor).subarray(0, wanted);
    const isComplete = ids.length === wanted;
    if (whole === undefined && !isComplete) continue;
    const weights = new Float64Array(ids.length);
    for (let i = 0; i < ids.length; i++) weights[i] = weight(chances, ids[i]!);
    const kept = nucleus(weights, topP, whole);
    if (kept.isReached || isComplete)
      return { ids, weights: weights.subarray(0, kept.count), total: kept.total };
  }
}

/** Ids of logits from `floor` on, sorted by falling logit, then rising id. */
function idsFrom(logits: Float32Array, floor: number): Uint32Array {
  let count = 0;
  for (let id = 0; id < logits.length; id++) if (logits[id]! >= floor) count += 1;
  const ids = new Uint32Array(count);
  for (let id = 0, i = 0; id < logits.length; id++) if (logits[id]! >= floor) ids[i++] = id;
  return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
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

/** How many leading weights (sorted) reach `topP` of the whole (by default their own sum), and what they sum to. */
function nucleus(
  weights: Float64Array,
  topP: number,
  whole?: number,
): { readonly count: number; readonly total: number; readonly isReached: boolean } {
  let sum = whole ?? 0;
  if (whole === undefined) for (const value of weights) sum += value;
  let total = 0;
  for (let i = 0; i < weights.length; i++) {
    total += weights[i]!;
    if (topP < 1 && total >= topP * sum) return { count: i + 1, total, isReached: true };
  }
  return { count: weights.length, total, isReached: topP === 1 };
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
