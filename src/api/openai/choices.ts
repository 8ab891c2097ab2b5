/**
 * The choices of one request, generated at the same time and merged as their parts come. At most one part of each waits
 * to be taken, so a reader that does not read holds back the model, not memory.
 */
import type { GenerationPart, TextGenerator, TextRequest } from '../../peer/text-generator.ts';

export interface ChoicePart {
  readonly index: number;
  readonly part: GenerationPart;
}

export interface Choices {
  /** Undefined after the `end` of every choice. Throws what the generator throws; then nothing more comes. */
  next(): Promise<ChoicePart | undefined>;
  /** Ends what still runs and waits until it has. Never throws; may be called more than once. */
  close(): Promise<void>;
}

type Settled =
  | { readonly index: number; readonly result: IteratorResult<GenerationPart, void> }
  | { readonly index: number; readonly error: unknown };

export function openChoices(
  generator: Pick<TextGenerator, 'generate'>,
  requests: readonly TextRequest[],
  signal: AbortSignal,
): Choices {
  const stop = new AbortController();
  const either = AbortSignal.any([signal, stop.signal]);
  const streams = requests.map((request) => generator.generate(request, either));
  const ready: Settled[] = [];
  let running = streams.length;
  let wake = () => {};
  const ask = (index: number) => {
    const settle = (settled: Settled) => {
      ready.push(settled);
      wake();
    };
    streams[index]!.next().then(
      (result) => settle({ index, result }),
      (error: unknown) => settle({ index, error }),
    );
  };
  for (let index = 0; index < streams.length; index++) ask(index);

  return {
    async next() {
      while (running > 0) {
        const settled = ready.shift();
        if (settled === undefined) await new Promise<void>((resolve) => (wake = resolve));
        else if ('error' in settled) {
          running = 0;
          throw settled.error;
        } else if (settled.result.done) running -= 1;
        else {
          ask(settled.index);
          return { index: settled.index, part: settled.result.value };
        }
      }
      return undefined;
    },
    async close() {
      stop.abort();
      await Promise.allSettled(streams.map((stream) => stream.return()));
    },
  };
}
