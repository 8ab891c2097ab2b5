/**
 * A conversation at a terminal: lines in, answers streamed out, what was said kept as long as the node's context holds
 * it. Ctrl-C ends the answer, or, pressed twice, the conversation. Knows the node only as a function that answers.
 */
import { createInterface } from 'node:readline';
import { CodedError } from '../std/outcome.ts';
import type { Message } from './chat-client.ts';
import type { TextStream } from './progress.ts';

export interface SessionOptions {
  readonly input: NodeJS.ReadableStream;
  readonly output: NodeJS.WritableStream & TextStream;
  readonly system: string | undefined;
  /** Pieces of the answer; throws CodedError, or the signal's reason. */
  readonly answer: (messages: readonly Message[], signal: AbortSignal) => AsyncIterable<string>;
  /** Asks the session to end. */
  readonly signal: AbortSignal;
}

const help = `/reset  forget what was said
/quit   leave (or Ctrl-D, or Ctrl-C twice)
Ctrl-C  ends an answer`;

/** Resolves when the user leaves; throws the signal's reason when it aborts. */
export async function converse(options: SessionOptions): Promise<void> {
  const { input, output, system, signal } = options;
  const opening: readonly Message[] = system === undefined ? [] : [{ role: 'system', content: system }];
  let history: readonly Message[] = [];
  let answering: AbortController | undefined;
  let isLeaving = false;
  const lines = createInterface({ input, output, prompt: '> ', terminal: true });
  const close = () => lines.close();
  signal.addEventListener('abort', close, { once: true });
  const show = (text: string) => void output.write(text);
  lines.on('SIGINT', () => {
    if (answering) return answering.abort();
    if (isLeaving) return lines.close();
    isLeaving = true;
    show('\n(Ctrl-C again to leave)\n');
    lines.prompt();
  });
  // Ctrl-D and /quit end the answer, too.
  lines.on('close', () => answering?.abort());
  lines.prompt();
  try {
    for await (const line of lines) {
      const text = line.trim();
      isLeaving = false;
      if (text === '/quit' || text === '/exit') break;
      if (text === '/reset') history = [];
      else if (text.startsWith('/')) show(`${help}\n`);
      else if (text !== '') {
        answering = new AbortController();
        const stop = AbortSignal.any([answering.signal, signal]);
        history = await exchange(options, opening, [...history, { role: 'user', content: text }], stop, show);
        answering = undefined;
      }
      if (!signal.aborted) lines.prompt();
    }
  } finally {
    signal.removeEventListener('abort', close);
    lines.close();
  }
  signal.throwIfAborted();
  show('\n');
}

/** Shows the answer to the last message; the result is what to remember. A failure is shown and forgotten. */
async function exchange(
  { answer }: SessionOptions,
  opening: readonly Message[],
  asked: readonly Message[],
  stop: AbortSignal,
  show: (text: string) => void,
): Promise<readonly Message[]> {
  let kept = asked;
  for (;;) {
    let said = '';
    try {
      for await (const piece of answer([...opening, ...kept], stop)) {
        said += piece;
        show(printable(piece));
      }
      show(said.endsWith('\n') ? '' : '\n');
      return [...kept, { role: 'assistant', content: said }];
    } catch (error) {
      if (stop.aborted) {
        show(' (stopped)\n');
        return said === '' ? kept.slice(0, -1) : [...kept, { role: 'assistant', content: said }];
      }
      if (!(error instanceof CodedError)) throw error;
      const isFull = error.code === 'context-full' && said === '' && kept.length > 2;
      show(isFull ? '(the oldest words no longer fit and are forgotten)\n' : `(${error.message})\n`);
      if (!isFull) return kept.slice(0, -1);
      kept = kept.slice(2);
    }
  }
}

/** Text of a stranger without what a terminal would obey. */
export function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '\ufffd');
}
