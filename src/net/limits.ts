/** Bounds of the network layer that belong to no single protocol. They stand here, next to each other. */

const KiB = 1024;
const MiB = 1024 * KiB;

/** Largest announcement on a topic, whatever a subscription asks for. */
export const topicMessageBytesMax = 192 * KiB;
/** Requests in flight from one peer to one protocol, those that its handler has not let go of included. */
export const requestsInFlightMax = 64;
/** Streams to one peer for one protocol, each with one request at a time; more requests wait for a stream. */
export const requestsAtOnceMax = 16;
/** Streams to one peer for one protocol that are kept open while nothing is asked, and for how long. */
export const idleStreamsMax = 8;
export const idleStreamMs = 120_000;
/** Request bodies of one peer, and of all, that are arriving or being worked on; more are answered `busy`. */
export const requestBytesHeldMax = 4 * 65 * MiB;
export const requestBytesHeldTotalMax = 16 * 65 * MiB;
/** Bytes handed to a stream at once: larger bodies go in such pieces, so that others get their turn between them. */
export const pieceBytesMax = 256 * KiB;
/** Announcements one peer may send us per minute over all topics. */
export const topicMessagesPerMinuteMax = 6_000;
/** Peers whose rates and scores are remembered. */
export const rememberedPeersMax = 4_096;

/** How long the directory keeps what a node provides, unless it says so again. */
export const providedMs = 20 * 60_000;
/** Nodes that one lookup connects to, and how long it takes at most. */
export const providersMax = 16;
export const findProvidersMs = 10_000;

const framesAtOnceMax = 64;
const framesPerSecondMax = 200;

/** Progress frames that a handler may send within so long from its request. Who asked takes twice as many. */
export function progressFramesMax(elapsedMs: number): number {
  return framesAtOnceMax + Math.floor((Math.max(0, elapsedMs) * framesPerSecondMax) / 1_000);
}
