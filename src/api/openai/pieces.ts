/**
 * One choice's parts as a client sees them: text without what was held back, and log probabilities of the tokens that
 * made it, in step with it. Tokens of a stop text were drawn but are no part of the answer.
 */
import type { FinishReason, GenerationPart, TokenProbability } from '../../peer/text-generator.ts';
import { leadingTrimmer } from './chat-template.ts';

export interface TokenLogprob {
  readonly chosen: TokenProbability;
  /** Likeliest first. */
  readonly top: readonly TokenProbability[];
  /** Characters of the answer before this token. */
  readonly offset: number;
}

export interface Piece {
  readonly text: string;
  readonly logprobs: readonly TokenLogprob[];
  /** Null until the last piece. */
  readonly finishReason: FinishReason | null;
}

export interface PieceMaker {
  push(part: GenerationPart): Piece;
}

export function pieceMaker({ trimsStart }: { readonly trimsStart: boolean }): PieceMaker {
  const trim = trimsStart ? leadingTrimmer() : (text: string) => text;
  // As the generator decodes: offsets count the same characters as its texts.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let held: TokenLogprob[] = [];
  let decoded = 0;
  let given = 0;
  return {
    push(part) {
      if (part.kind === 'token' && part.chosen) {
        held.push({ chosen: part.chosen, top: part.top ?? [], offset: decoded });
        decoded += decoder.decode(part.chosen.bytes, { stream: true }).length;
      }
      given += part.text.length;
      const logprobs = held.filter(({ offset }) => offset < given);
      held = held.slice(logprobs.length);
      const finishReason = part.kind === 'end' ? part.finishReason : null;
      return { text: trim(part.text), logprobs, finishReason };
    },
  };
}

/** All pieces of one choice as one. */
export function joinPieces(pieces: readonly Piece[]): Piece {
  return {
    text: pieces.map(({ text }) => text).join(''),
    logprobs: pieces.flatMap(({ logprobs }) => logprobs),
    finishReason: pieces.at(-1)?.finishReason ?? null,
  };
}

/** JSON has no −∞; OpenAI writes this for what is next to impossible. */
export function finiteLogprob(logprob: number): number {
  return Math.max(logprob, -9999);
}
