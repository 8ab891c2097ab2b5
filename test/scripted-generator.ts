/**
 * A text generator that writes what a test tells it to, token by token, by the contract of `TextGenerator`: stop texts,
 * held-back characters, the context, log probabilities, aborts. Its tokens are bytes; 256 ends a text.
 */
import { textStopMatcher } from '../src/model/sampler.ts';
import type {
  FinishReason,
  GenerationPart,
  TextGenerator,
  TextRequest,
  TokenProbability,
} from '../src/peer/text-generator.ts';
import { utf8 } from '../src/std/bytes.ts';
import { CodedError } from '../src/std/outcome.ts';

const endOfText = 256;

export interface Script {
  /** What the model writes after a prompt; the end-of-text token follows, unless `isEndless` repeats it. */
  readonly answer: (prompt: string, request: TextRequest) => string;
  readonly isEndless?: boolean;
  readonly contextMax?: number;
  /** Before each token is drawn: waits, or throws. The signal is that of the generation. */
  readonly beforeToken?: (drawn: number, signal: AbortSignal | undefined) => Promise<void> | void;
}

export interface ScriptedGenerator extends TextGenerator {
  readonly requests: TextRequest[];
  /** Generations that have begun and not ended. */
  running(): number;
  /** Tokens drawn in all generations. */
  drawn(): number;
}

export function scriptedGenerator(script: Script): ScriptedGenerator {
  const { contextMax = 4096 } = script;
  const requests: TextRequest[] = [];
  let running = 0;
  let drawn = 0;
  const decode = (tokens: readonly number[]) =>
    new TextDecoder().decode(Uint8Array.from(tokens.filter((token) => token < endOfText)));

  async function* generate(request: TextRequest, signal?: AbortSignal): AsyncGenerator<GenerationPart, void> {
    requests.push(request);
    requireValid(request, contextMax);
    const written = utf8(script.answer(decode(request.prompt), request));
    const matcher = textStopMatcher(request.stop);
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    const budget = Math.min(request.maxTokens, contextMax - request.prompt.length);
    let completionTokens = 0;
    const end = (finishReason: FinishReason, text: string): GenerationPart => ({
      kind: 'end',
      finishReason,
      text,
      usage: { promptTokens: request.prompt.length, completionTokens },
    });
    running += 1;
    try {
      while (completionTokens < budget) {
        await script.beforeToken?.(completionTokens, signal);
        signal?.throwIfAborted();
        const token = tokenAt(written, completionTokens, script.isEndless === true);
        completionTokens += 1;
        drawn += 1;
        const piece = token === endOfText ? '' : decoder.decode(Uint8Array.of(token), { stream: true });
        const { emit, stopped } = matcher.push(piece);
        yield { kind: 'token', token, text: emit, ...probabilities(token, request.logprobs) };
        if (stopped) return yield end('stop', '');
        if (token === endOfText) return yield end('stop', matcher.flush());
      }
      const rest = matcher.push(decoder.decode());
      yield end('length', rest.emit + matcher.flush());
    } finally {
      running -= 1;
    }
  }

  return {
    model: 'scripted',
    contextMax,
    encode: (text) => [endOfText, ...utf8(text)],
    decode,
    generate,
    requests,
    running: () => running,
    drawn: () => drawn,
  };
}

function tokenAt(written: Uint8Array, index: number, isEndless: boolean): number {
  return written[isEndless ? index % written.length : index] ?? endOfText;
}

function requireValid({ prompt }: TextRequest, contextMax: number): void {
  if (prompt.length === 0) throw new CodedError('empty-prompt', 'the prompt holds no token');
  if (prompt.length >= contextMax) throw new CodedError('context-full', 'the prompt leaves no room');
  for (const token of prompt) {
    if (token > endOfText) throw new CodedError('bad-token', `token ${token} is not in the vocabulary`);
  }
}

/** The chosen token has half of the probability; the next bytes have half of what is left, each. */
function probabilities(token: number, asked: number | undefined) {
  if (asked === undefined) return {};
  const entry = (rank: number): TokenProbability => {
    const id = rank === 0 ? token : (token + rank) % endOfText;
    const bytes = id === endOfText ? new Uint8Array() : Uint8Array.of(id);
    return { token: id, text: new TextDecoder().decode(bytes), bytes, logprob: -(rank + 1) * Math.LN2 };
  };
  return { chosen: entry(0), top: Array.from({ length: asked }, (_, rank) => entry(rank)) };
}
