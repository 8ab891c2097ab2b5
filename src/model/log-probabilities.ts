/** Log probabilities of next tokens as they are told to people: softmax of the logits, before any sampling option. */
import { assert } from '../std/assert.ts';

export interface TokenLogProbability {
  readonly token: number;
  /** Natural logarithm, at most 0. */
  readonly logprob: number;
}

/** Of the chosen token, and of the `count` likeliest: falling, the lower id first among equals. */
export function logProbabilities(
  logits: Float32Array,
  chosen: number,
  count: number,
): { readonly chosen: TokenLogProbability; readonly top: readonly TokenLogProbability[] } {
  assert(chosen >= 0 && chosen < logits.length, `token ${chosen} of ${logits.length}`);
  let largest = Number.NEGATIVE_INFINITY;
  for (const logit of logits) if (logit > largest) largest = logit;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - largest);
  const offset = largest + Math.log(sum);
  const named = (token: number) => ({ token, logprob: Math.min(0, logits[token]! - offset) });
  return { chosen: named(chosen), top: likeliest(logits, count).map(named) };
}

/** One pass with a short sorted list: the vocabulary is long, and what is asked for is short. */
function likeliest(logits: Float32Array, count: number): number[] {
  const best: number[] = [];
  if (count === 0) return best;
  for (let token = 0; token < logits.length; token++) {
    const logit = logits[token]!;
    if (best.length === count && logit <= logits[best[count - 1]!]!) continue;
    let at = best.length;
    while (at > 0 && logits[best[at - 1]!]! < logit) at -= 1;
    best.splice(at, 0, token);
    if (best.length > count) best.pop();
  }
  return best;
}
