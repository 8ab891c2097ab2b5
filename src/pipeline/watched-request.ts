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
  /** The callee's work has moved on, its first sign of life included. */
  readonly moved?: () => void;
}

/** A failed request with the time its callee was last heard of. */
export interface WatchedRejection extends Rejection {
  readonly lastSignMs: number;
}

/**
 * `silent` and `no-progress` besides the transport's codes; `aborted` only when the signal did. A callee given up as
 * silent is listened to for as long again: a link that was only late is known for it from then on, and a node that hung
 * for longer says nothing about its link.
 */
export async function watchedRequest(
  { transport, clock, links, router }: WatchedRequestOptions,
  { node, protocol, message, signal, patience = 1, progressMs, moved }: WatchedRequest,
): Promise<Extract<Outcome<Uint8Array>, { ok: true }> | WatchedRejection> {
  const startedMs = clock.nowMs();
  let heardMs = startedMs;
  let firstMs: number | undefined;
  let queueDepth = 0;
  let progress = -1;
  let dead: string | undefined;
  const over = new AbortController();
  const onAbort = () => over.abort();
  if (signal?.aborted) onAbort();
  signal?.addEventListener('abort', onAbort, { once: true });
  let cancelListening = () => {};
  let giveUp = () => {};
  const givenUp = new Promise<undefined>((resolve) => {
    giveUp = () => resolve(undefined);
  });
  const silenceMs = patience * (links.silenceMs(node) + links.transferMs(node, message.length));
  const watch = watchCall({
    clock,
    silenceMs,
    progressMs,
    onDead: (code) => {
      dead = code;
      if (code === 'silent') cancelListening = clock.setTimer(silenceMs, () => over.abort());
      else over.abort();
      giveUp();
    },
  });
  const asked = transport.request(node, protocol, message, over.signal, (bytes) => {
    const frame = readFrame(bytes);
    if (!frame) return;
    const nowMs = clock.nowMs();
    if (firstMs === undefined) links.transfer(node, message.length, nowMs - startedMs);
    else links.frame(node, nowMs - heardMs);
    if (dead) return over.abort();
    firstMs ??= nowMs;
    heardMs = nowMs;
    queueDepth = frame.queueDepth;
    if (frame.progress !== progress) moved?.();
    progress = frame.progress;
    watch.frame(frame.progress);
  });
  void asked.then(() => cancelListening());
  const answer = (await Promise.race([asked, givenUp])) ?? reject(dead ?? 'silent');
  watch.stop();
  signal?.removeEventListener('abort', onAbort);
  if (!answer.ok) {
    const failure = signal?.aborted ? reject('aborted') : dead ? reject(dead) : answer;
    return { ...failure, lastSignMs: heardMs };
  }
  const nowMs = clock.nowMs();
  const latencyMs = (firstMs ?? nowMs) - startedMs;
  router.observe(node, { serviceMs: nowMs - startedMs - latencyMs, latencyMs, queueDepth });
  return answer;
}
