/**
 * One request answered: places taken, choices generated together, whole or as a stream, and everything given back
 * however it ends. Knows neither route: an `AnswerShape` says what the JSON looks like.
 */
import type { Context } from 'hono';
import type { TextGenerator, TextRequest, TokenUsage } from '../../peer/text-generator.ts';
import type { Clock } from '../../std/clock.ts';
import type { KeyAccount, Reservation } from '../key-accounts.ts';
import type { Admission } from './admission.ts';
import { type Choices, openChoices } from './choices.ts';
import type { GenerationOutcome, TextCounters } from './counters.ts';
import { ApiError, apiErrorOf, badRequest, errorBody, quotaExceeded } from './errors.ts';
import { stallMsMax } from './limits.ts';
import { joinPieces, type Piece, pieceMaker } from './pieces.ts';
import { type EventSource, sseBody } from './sse-body.ts';

export interface AnswerShape {
  /** Chunks before the first piece of any choice. */
  opening(): readonly unknown[];
  chunk(index: number, piece: Piece): unknown;
  /** The chunk that tells the usage, with no choice in it. */
  usageChunk(usage: TokenUsage): unknown;
  whole(choices: readonly Piece[], usage: TokenUsage): unknown;
}

export interface AnswerWork {
  /** Of the answer, as its reader has it. */
  readonly id: string;
  /** One for each choice. */
  readonly requests: readonly TextRequest[];
  /** Of the prompts, each counted once. */
  readonly promptTokens: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
  /** Whether white space that an answer begins with is dropped. */
  readonly trimsStart: boolean;
  readonly shape: AnswerShape;
}

export interface AnswerParts {
  readonly generator: TextGenerator;
  readonly admission: Admission;
  readonly counters: TextCounters;
  readonly clock: Clock;
  /** Pays for it; none where no key is needed. */
  readonly account?: KeyAccount;
}

/** Throws ApiError, or what the generator throws before its first part. */
export async function answer(context: Context, parts: AnswerParts, work: AnswerWork): Promise<Response> {
  const run = startRun(context.req.raw.signal, parts, work);
  try {
    if (work.stream) return await streamed(run, parts, work);
    const pieces = work.requests.map((): Piece[] => []);
    for (let event = await run.next(); event; event = await run.next())
      pieces[event.index]!.push(event.piece);
    await run.end('failed');
    return context.json(work.shape.whole(pieces.map(joinPieces), run.usage()));
  } catch (error) {
    void run.end('failed');
    throw error;
  }
}

interface Run {
  next(): Promise<{ readonly index: number; readonly piece: Piece } | undefined>;
  usage(): TokenUsage;
  /** Ends what still runs, as `outcome`, and resolves when its places are free. */
  end(outcome: GenerationOutcome): Promise<void>;
}

function startRun(
  client: AbortSignal,
  { generator, admission, counters, account }: AnswerParts,
  work: AnswerWork,
): Run {
  const { promptTokens } = work;
  const release = takePlaces(admission, work.requests.length);
  const credit = account && takeCredit(account, work, release);
  const requests = work.requests.map((request, i) => ({
    ...request,
    maxTokens: credit?.maxTokens[i] ?? request.maxTokens,
  }));
  const choices: Choices = openChoices(generator, requests, client);
  const makers = requests.map(() => pieceMaker(work));
  const drawn = requests.map(() => 0);
  let completionTokens = 0;
  let running = requests.length;
  let ending: Promise<void> | undefined;
  counters.promptTokens(promptTokens);
  return {
    async next() {
      const item = await choices.next();
      if (item === undefined) return undefined;
      const { index, part } = item;
      if (part.kind === 'token') {
        counters.completionToken();
        drawn[index]! += 1;
      } else {
        drawn[index] = part.usage.completionTokens;
        running -= 1;
        completionTokens += part.usage.completionTokens;
        counters.ended(part.finishReason);
      }
      return { index, piece: makers[index]!.push(part) };
    },
    usage: () => ({ promptTokens, completionTokens }),
    end(outcome) {
      if (ending) return ending;
      for (; running > 0; running--) counters.ended(client.aborted ? 'disconnected' : outcome);
      const used = drawn.reduce((sum, tokens) => sum + tokens, 0);
      credit?.settle({ request: work.id, promptTokens, completionTokens: used });
      ending = choices.close().then(release);
      return ending;
    },
  };
}

/** Throws ApiError 429 when the key has nothing left. */
function takeCredit(account: KeyAccount, work: AnswerWork, release: () => void): Reservation {
  const { requests, promptTokens } = work;
  const maxTokens = requests.map((request) => request.maxTokens);
  const credit = account.reserve({ promptTokens, maxTokens });
  if (credit) return credit;
  release();
  throw quotaExceeded();
}

function takePlaces(admission: Admission, places: number): () => void {
  if (places > admission.max) {
    const message = `The request has ${places} choices; this node generates at most ${admission.max} at once.`;
    throw badRequest('too_many_choices', message, 'n');
  }
  const release = admission.take(places);
  if (release) return release;
  const message = `This node generates at most ${admission.max} answers at once; try again in a moment.`;
  throw new ApiError(429, 'rate_limit_exceeded', message);
}

/** The first piece is awaited before the response begins, so that a refusal still has its HTTP status. */
async function streamed(run: Run, { counters, clock }: AnswerParts, work: AnswerWork): Promise<Response> {
  const { shape, includeUsage } = work;
  const queue: string[] = [];
  let isOver = false;
  const take = async () => {
    const event = await run.next();
    if (event) {
      const { index, piece } = event;
      const isVisible = piece.text !== '' || piece.logprobs.length > 0 || piece.finishReason !== null;
      if (isVisible) queue.push(JSON.stringify(shape.chunk(index, piece)));
      return;
    }
    await run.end('failed');
    if (includeUsage) queue.push(JSON.stringify(shape.usageChunk(run.usage())));
    queue.push('[DONE]');
    close();
  };
  const close = () => {
    if (!isOver) counters.streamClosed();
    isOver = true;
  };
  for (const chunk of shape.opening()) queue.push(JSON.stringify(chunk));
  await take();
  counters.streamOpened();
  const source: EventSource = {
    async next() {
      while (queue.length === 0 && !isOver) {
        try {
          await take();
        } catch (error) {
          void run.end('failed');
          queue.push(JSON.stringify(errorBody(apiErrorOf(error))));
          close();
        }
      }
      return queue.shift();
    },
    leave(reason) {
      void run.end(reason);
      close();
      const message = `The stream was not read for ${stallMsMax / 1000} s; the answer has ended.`;
      return JSON.stringify(errorBody(new ApiError(500, 'reader_too_slow', message)));
    },
  };
  return new Response(sseBody(source, clock), {
    headers: { 'Content-Type': 'text/event-stream; charset=utf-8', 'X-Accel-Buffering': 'no' },
  });
}
