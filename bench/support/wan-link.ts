/**
 * The model of a link over the internet for the in-memory network: delay, rate, and what lost packets of a TCP
 * connection do to its messages, which are late then, with all that come after them. Nothing is lost for good.
 */

import type { LinkVerdict } from '../../src/net/memory-link.ts';
import type { NodeId } from '../../src/net/transport.ts';
import type { Clock } from '../../src/std/clock.ts';
import { type Random, uniform } from '../../src/std/random.ts';

export interface WanLinkOptions {
  readonly random: Random;
  readonly rttMs: number;
  /** Of packets, 0 to 1. */
  readonly loss?: number;
  readonly bytesPerSecond?: number;
}

const packetBytes = 1_400;
/** Linux's least retransmission timeout beyond the round trip (RFC 6298 has a second). */
const timeoutMs = 200;
/** With so many packets after it, a lost one is noticed by the receiver's repeated acknowledgements (RFC 5681). */
const packetsForFastRetransmit = 3;

export function createWanLink({ random, rttMs, loss = 0, bytesPerSecond }: WanLinkOptions) {
  /** By connection and direction: when what was sent last arrives. */
  const arrivals = new Map<string, number>();
  const lateMs = (bytes: number) => {
    let packets = Math.ceil(bytes / packetBytes);
    let lateMs = 0;
    let backoff = 1;
    while (packets > 0) {
      let lost = 0;
      let tail = 0;
      for (let i = 0; i < packets; i++)
        if (uniform(random) < loss) {
          lost += 1;
          tail = packets - 1 - i;
        }
      if (lost === 0) break;
      lateMs += tail >= packetsForFastRetransmit ? rttMs : (rttMs + timeoutMs) * backoff;
      if (tail < packetsForFastRetransmit) backoff *= 2;
      packets = lost;
    }
    return lateMs;
  };
  return (from: NodeId, to: NodeId, bytes: number, clock: Clock): LinkVerdict => {
    const nowMs = clock.nowMs();
    const rate = bytesPerSecond === undefined ? {} : { bytesPerSecond };
    if (loss === 0) return { delayMs: rttMs / 2, lost: false, ...rate };
    const link = `${from} ${to}`;
    const atMs = Math.max(nowMs + rttMs / 2 + lateMs(bytes), arrivals.get(link) ?? 0);
    arrivals.set(link, atMs);
    return { delayMs: atMs - nowMs, lost: false, ...rate };
  };
}
