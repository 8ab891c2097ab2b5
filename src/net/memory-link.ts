/**
 * When a message arrives on a link of the in-memory network: the link's delay, and its rate shared by what travels on
 * it. Works out times only; it knows neither clocks nor nodes.
 */
import { pieceBytesMax } from './limits.ts';

/** What becomes of one message on its way. */
export interface LinkVerdict {
  /** From the last byte's leaving to its arrival. */
  readonly delayMs: number;
  /** A lost announcement or frame never arrives; a lost request or response makes its caller see `stalled`. */
  readonly lost: boolean;
  /**
   * The link carries so many bytes a second, one large message after another. Small ones (up to a piece, 256 KiB) do
   * not queue behind a large one, as streams of a connection take turns: they wait for one piece at most, and hold the
   * large one up by their own time. Without it the link carries everything at once.
   */
  readonly bytesPerSecond?: number;
}

/** One direction of a link. */
export interface LinkState {
  /** When what has been given to it will have left. */
  freeAtMs: number;
  smallFreeAtMs: number;
}

export function createLinkState(): LinkState {
  return { freeAtMs: 0, smallFreeAtMs: 0 };
}

/** When the last byte of a message that is handed over now has left. */
export function departureMs(link: LinkState, nowMs: number, bytes: number, bytesPerSecond?: number): number {
  if (bytesPerSecond === undefined) return nowMs;
  const ownMs = (bytes * 1_000) / bytesPerSecond;
  const queueEndMs = Math.max(nowMs, link.freeAtMs) + ownMs;
  link.freeAtMs = queueEndMs;
  if (bytes > pieceBytesMax) return queueEndMs;
  const pieceMs = (pieceBytesMax * 1_000) / bytesPerSecond;
  const turnMs = Math.max(nowMs, link.smallFreeAtMs) + ownMs + pieceMs;
  const leftMs = Math.min(queueEndMs, turnMs);
  link.smallFreeAtMs = Math.max(nowMs, link.smallFreeAtMs) + ownMs;
  return leftMs;
}
