/**
 * One request that is given up when its callee falls silent, with what it taught about link and callee passed on. It
 * asks one node once: trying another is the caller's.
 */
import type { Protocol } from '../net/protocol.ts';
import type { NodeId, Transport } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { type Outcome, type Rejection, reject } from '../std/outcome.ts';
import { readFrame } from './frames.ts';
import { type LinkWatch, watchCall } from './link-watch.ts';
import type { Router } from './routing.ts';

export interface WatchedRequestOptions {
  readonly transport: Transport;
  readonly clock: Clock;
  readonly links: LinkWatch;
  readonly router: Router;
}

export interface WatchedRequest {
  readonly node: NodeId;
  readonly protocol: Protocol;
  readonly message: Uint8Array;
  readonly signal?: AbortSignal;
  /** Silence allowed, in times the link's own; 1 by default. */
  readonly patience?: number;
  /** Frames without progress are believed for so long. */
  readonly progressMs: number;
}

/** A failed request with the time its callee was last heard of. */
export interface WatchedRejection extends Rejection {
  readonly lastSignMs: number;
}

/** `silent` and `no-progress` besides the transport's codes; `aborted` only when the signal did. */
export async function watchedRequest(
  { transport, clock, links, router }: WatchedRequestOptions,
  { node, protocol, message, signal, patience = 1, progressMs }: WatchedRequest,
): Promise<Extract<Outcome<Uint8Array>, { ok: true }> | WatchedRejection> {
  const startedMs = clock.nowMs();
  let heardMs = startedMs;
  let firstMs: number | undefined;
  let queueDepth = 0;
  let dead: string | undefined;
  const giveUp = new AbortController();
  const onAbort = () => giveUp.abort();
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  const watch = watchCall({
    clock,
    silenceMs: patience * (links.silenceMs(node) + links.transferMs(node, message.length)),
    progressMs,
    onDead: (code) => {
      dead = code;
      giveUp.abort();
    },
  });
  const answer = await transport.request(node, protocol, message, giveUp.signal, (bytes) => {
    const frame = readFrame(bytes);
    if (!frame) return;
    const nowMs = clock.nowMs();
    if (firstMs === undefined) links.transfer(node, message.length, nowMs - startedMs);
    else links.frame(node, nowMs - heardMs);
    firstMs ??= nowMs;
    heardMs = nowMs;
    queueDepth = frame.queueDepth;
    watch.frame(frame.progress);
  });
  watch.stop();
  signal?.removeEventListener('abort', onAbort);
  if (!answer.ok) return { ...(dead && !signal?.aborted ? reject(dead) : answer), lastSignMs: heardMs };
  const nowMs = clock.nowMs();
  const latencyMs = (firstMs ?? nowMs) - startedMs;
  router.observe(node, { serviceMs: nowMs - startedMs - latencyMs, latencyMs, queueDepth });
  return answer;
}
