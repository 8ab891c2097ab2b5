/**
 * Server-sent events as a response body that is pulled: the next event is asked for when the reader has taken the last.
 * A reader that takes nothing for too long loses the stream. Knows nothing of what the events say.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
import { utf8 } from '../../std/bytes.ts';
import type { Clock } from '../../std/clock.ts';
import { heartbeatMs, stallMsMax } from './limits.ts';

export interface EventSource {
  /** The data of the next event; undefined at the end. Never throws. */
  next(): Promise<string | undefined>;
  /**
   * The reader has left or stands still: nothing more is asked for. Called once at most, and not after the end. The
   * result is the data of a last event, for a reader that comes back.
   */
  leave(reason: 'disconnected' | 'stalled'): string;
}

export function sseBody(source: EventSource, clock: Clock): ReadableStream<Uint8Array> {
  let hasEnded = false;
  let pending: Promise<string | undefined> | undefined;
  let cancelStall = () => {};
  const watchReader = (controller: ReadableStreamDefaultController<Uint8Array>) => {
    cancelStall = clock.setTimer(stallMsMax, () => {
      hasEnded = true;
      controller.enqueue(eventOf(source.leave('stalled')));
      controller.close();
    });
  };
  return new ReadableStream<Uint8Array>(
    {
      start: watchReader,
      async pull(controller) {
        cancelStall();
        pending ??= source.next();
        const data = await orQuiet(pending, clock);
        if (hasEnded) return;
        if (data === quiet) controller.enqueue(utf8(': still here\n\n'));
        else {
          pending = undefined;
          if (data === undefined) {
            hasEnded = true;
            controller.close();
            return;
          }
          controller.enqueue(eventOf(data));
        }
        watchReader(controller);
      },
      cancel() {
        cancelStall();
        if (!hasEnded) source.leave('disconnected');
        hasEnded = true;
      },
    },
    // Nothing is made ahead of the reader.
    { highWaterMark: 0 },
  );
}

const eventOf = (data: string) => utf8(`data: ${data}\n\n`);

const quiet = Symbol('quiet');

async function orQuiet<T>(promise: Promise<T>, clock: Clock): Promise<T | typeof quiet> {
  let cancel = () => {};
  const silence = new Promise<typeof quiet>((resolve) => {
    cancel = clock.setTimer(heartbeatMs, () => resolve(quiet));
  });
  try {
    return await Promise.race([promise, silence]);
  } finally {
    cancel();
  }
}
