/**
 * What each link is like: how long it is silent between two frames, and how long it takes a message to be answered by a
 * first one. From that follows when a callee is given up. It sends nothing and chooses no replacement.
 */
import type { NodeId } from '../net/transport.ts';
import type { Clock } from '../std/clock.ts';
import { frameMs } from './frames.ts';

export interface LinkWatch {
  /** `gapMs` passed since the frame before. A frame that came after its call was given up counts, too. */
  frame(node: NodeId, gapMs: number): void;
  /**
   * Silence after which the link counts as dead: max(200 ms, p99.9 of its recent gaps), at most `silenceMsMax`; over a wide
   * link never less than it takes to repair one lost packet.
   */
  silenceMs(node: NodeId): number;
  /** The first frame came `tookMs` after the start of a message of so many bytes. */
  transfer(node: NodeId, bytes: number, tookMs: number): void;
  /** How long a message of so many bytes may take until its first frame, beyond the silence allowed. */
  transferMs(node: NodeId, bytes: number): number;
}

export const silenceMsMin = 200;
/** From this round trip on a link is a wide one, where packets are lost; on a local one nobody waits for that. */
const wideRoundTripMs = 10;
/** A peer can delay its answers to measurements, and a busy machine its own: no more than this is believed. */
const wideRoundTripMsMax = 500;
/** A lost frame is late by a round trip and TCP's least retransmission timeout (200 ms on Linux), after the pause between two
 * frames; one more pause is for jitter. */
const repairMs = 2 * frameMs + 200;
/** A link with longer gaps is given up and asked again: waiting longer costs more. It also bounds what a peer can feign. */
export const silenceMsMax = 2_000;

/** At 20 frames a second and call, about the last minute. Below 1,000 gaps the percentile is the largest of them. */
const gapsRemembered = 1_024;
/** Of the gaps, this one counted from the largest, 1 being the largest, is the percentile. */
const rankFromLargest = (count: number) => count - Math.ceil(0.999 * count) + 1;
/** A link unused for this long is a new one: routes and loads change. */
const forgetAfterMs = 10 * 60_000;
const linksMax = 1_024;

const transferMsMax = 10_000;
/** Of a link that nothing is known about: 10 Mb/s. */
const bytesPerMsAssumed = 1_250;

/** Smoothed duration and deviation, as of a TCP round trip (RFC 6298). */
interface Duration {
  meanMs: number;
  deviationMs: number;
}

interface Link {
  /** Of all messages, the least time until a first frame: no round trip is longer. */
  leastMs: number;
  readonly gapsMs: Float32Array;
  gaps: number;
  usedMs: number;
  /** By the power of two of the message's bytes: training sends the same sizes again and again. */
  readonly transfers: Map<number, Duration>;
}

export interface LinkWatchOptions {
  readonly clock: Clock;
  /** As measured by the transport, of a link that may never have been used here; undefined where it is not known. */
  readonly roundTripMs?: (node: NodeId) => number | undefined;
}

export function createLinkWatch({ clock, roundTripMs = () => undefined }: LinkWatchOptions): LinkWatch {
  /** The least recently used first. */
  const links = new Map<NodeId, Link>();
  const known = (node: NodeId) => {
    const link = links.get(node);
    return link && clock.nowMs() - link.usedMs < forgetAfterMs ? link : undefined;
  };
  const used = (node: NodeId) => {
    const link = known(node) ?? {
      gapsMs: new Float32Array(gapsRemembered),
      gaps: 0,
      usedMs: 0,
      transfers: new Map(),
      leastMs: Number.POSITIVE_INFINITY,
    };
    link.usedMs = clock.nowMs();
    links.delete(node);
    links.set(node, link);
    if (links.size > linksMax) links.delete(links.keys().next().value!);
    return link;
  };
  /** A measurement made while this machine was busy is too long; the first frames of calls tell. */
  const wideMs = (node: NodeId) => {
    const measuredMs = Math.min(roundTripMs(node) ?? 0, known(node)?.leastMs ?? Number.POSITIVE_INFINITY);
    return measuredMs < wideRoundTripMs ? 0 : Math.min(measuredMs, wideRoundTripMsMax);
  };
  return {
    frame: (node, gapMs) => {
      if (!(gapMs >= 0)) return;
      const link = used(node);
      link.gapsMs[link.gaps++ % gapsRemembered] = Math.min(gapMs, silenceMsMax);
    },
    silenceMs: (node) => {
      const link = known(node);
      const wide = wideMs(node);
      const leastMs = wide === 0 ? silenceMsMin : repairMs + wide;
      return Math.min(Math.max(leastMs, link ? gapPercentile(link) : 0), silenceMsMax);
    },
    transfer: (node, bytes, tookMs) => {
      if (!(tookMs >= 0)) return;
      const link = used(node);
      link.leastMs = Math.min(link.leastMs, tookMs);
      learn(link.transfers, sizeClass(bytes), Math.min(tookMs, transferMsMax));
    },
    transferMs: (node, bytes) => {
      const { transfers } = known(node) ?? { transfers: new Map() };
      const expectedMs = expectedTransferMs(transfers, bytes) ?? wideMs(node) + bytes / bytesPerMsAssumed;
      return Math.min(expectedMs, transferMsMax);
    },
  };
}

/** One pass: the rank is 1 or 2 with so many gaps, so the two largest are enough. */
function gapPercentile({ gapsMs, gaps }: Link): number {
  const count = Math.min(gaps, gapsRemembered);
  let largest = 0;
  let second = 0;
  for (let i = 0; i < count; i++) {
    const gap = gapsMs[i]!;
    if (gap > largest) {
      second = largest;
      largest = gap;
    } else if (gap > second) {
      second = gap;
    }
  }
  return rankFromLargest(count) <= 1 ? largest : second;
}

function sizeClass(bytes: number): number {
  return 32 - Math.clz32(bytes);
}

function learn(transfers: Map<number, Duration>, size: number, tookMs: number): void {
  const duration = transfers.get(size);
  if (!duration) {
    transfers.set(size, { meanMs: tookMs, deviationMs: tookMs / 2 });
    return;
  }
  duration.deviationMs += (Math.abs(tookMs - duration.meanMs) - duration.deviationMs) / 4;
  duration.meanMs += (tookMs - duration.meanMs) / 8;
}

function expectedTransferMs(transfers: ReadonlyMap<number, Duration>, bytes: number): number | undefined {
  const wanted = sizeClass(bytes);
  let nearest: number | undefined;
  for (const size of transfers.keys()) {
    if (nearest === undefined || Math.abs(size - wanted) < Math.abs(nearest - wanted)) nearest = size;
  }
  if (nearest === undefined) return undefined;
  const { meanMs, deviationMs } = transfers.get(nearest)!;
  // A larger message takes at most in proportion; a smaller one, as far as is known, as long.
  return (meanMs + 4 * deviationMs) * 2 ** Math.max(0, wanted - nearest);
}

export type DeathCode = 'silent' | 'no-progress';

export interface WatchCallOptions {
  readonly clock: Clock;
  /** Dead as `silent` when no frame comes for this long, from the start on. */
  readonly silenceMs: number;
  /** Dead as `no-progress` when frames come and tell of no progress for this long. */
  readonly progressMs: number;
  /** Called once at most. */
  readonly onDead: (code: DeathCode) => void;
}

export interface CallWatch {
  /** Progress only counts when it exceeds all that was told before. */
  frame(progress: number): void;
  stop(): void;
}

/** A timer that fires this late was held up by this very node: what the peer sent meanwhile is still unread. */
const lateMs = 20;
/** Time to read it. */
const graceMs = 20;
/** Times in a row that the node may excuse the peer with its own delay. */
const gracesMax = 3;

/** Watches over one call until it is stopped or dead. */
export function watchCall({ clock, silenceMs, progressMs, onDead }: WatchCallOptions): CallWatch {
  let frameMs = clock.nowMs();
  let progressAtMs = frameMs;
  let best = Number.NEGATIVE_INFINITY;
  let graces = 0;
  let isOver = false;
  let cancel = () => {};
  const deadlineMs = () => Math.min(frameMs + silenceMs, progressAtMs + progressMs);

  const arm = (atMs: number) => {
    cancel = clock.setTimer(Math.max(0, atMs - clock.nowMs()), () => check(atMs));
  };
  const check = (expectedMs: number) => {
    if (isOver) return;
    const nowMs = clock.nowMs();
    if (nowMs < deadlineMs()) return arm(deadlineMs());
    if (nowMs - expectedMs >= lateMs && graces < gracesMax) {
      graces += 1;
      return arm(nowMs + graceMs);
    }
    isOver = true;
    onDead(frameMs + silenceMs <= progressAtMs + progressMs ? 'silent' : 'no-progress');
  };
  arm(deadlineMs());

  return {
    frame: (progress) => {
      graces = 0;
      frameMs = clock.nowMs();
      if (!(progress > best)) return;
      best = progress;
      progressAtMs = frameMs;
    },
    stop: () => {
      isOver = true;
      cancel();
    },
  };
}
