/**
 * A node's events to many readers, as server-sent events. Each reader has a bounded queue: one that does not keep up
 * is dropped and may come again, the node never waits for it.
 * Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
 */
import type { Context } from 'hono';
import { type SSEStreamingApi, streamSSE } from 'hono/streaming';
import type { EventSink, NodeEvent } from '../peer/events.ts';
import type { Clock } from '../std/clock.ts';

/** Calls the sink with every event from now on; the result ends that. */
export type Subscribe = (sink: EventSink) => () => void;

export const readersMax = 32;
const queueMax = 256;
/** A comment line this often, so that proxies and readers can tell a quiet node from a dead link. */
const heartbeatMs = 15_000;

export function streamEvents(
  context: Context,
  subscribe: Subscribe,
  clock: Clock,
  onEnd: () => void,
): Response {
  return streamSSE(context, async (stream) => {
    const queue: NodeEvent[] = [];
    let wake = () => {};
    let hasLeft = false;
    const leave = () => {
      if (hasLeft) return;
      hasLeft = true;
      unsubscribe();
      onEnd();
    };
    const unsubscribe = subscribe((event) => {
      // A write to a reader that stands still may never return, so its place is freed here and now.
      if (queue.length >= queueMax) leave();
      else queue.push(event);
      wake();
    });
    stream.onAbort(() => wake());
    try {
      await stream.write(': connected\n\n');
      while (!stream.aborted && !hasLeft) {
        const event = queue.shift();
        if (event !== undefined) await stream.writeSSE({ event: event.type, data: JSON.stringify(event) });
        else await wakeOrHeartbeat(stream, clock, (resolve) => (wake = resolve));
      }
    } finally {
      leave();
    }
  });
}

async function wakeOrHeartbeat(
  stream: SSEStreamingApi,
  clock: Clock,
  onWake: (resolve: () => void) => void,
): Promise<void> {
  let isQuiet = false;
  await new Promise<void>((resolve) => {
    const cancel = clock.setTimer(heartbeatMs, () => {
      isQuiet = true;
      resolve();
    });
    onWake(() => {
      cancel();
      resolve();
    });
  });
  if (isQuiet && !stream.aborted) await stream.write(': still here\n\n');
}
