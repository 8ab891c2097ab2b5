/** Bounds of the network layer that belong to no single protocol. They stand here, next to each other. */

const KiB = 1024;

/** Largest announcement on a topic, whatever a subscription asks for. */
export const topicMessageBytesMax = 64 * KiB;
/** Requests in flight from one peer to one protocol; more are refused. */
export const requestsInFlightMax = 64;
/** Requests of one stream that are worked on at once; while others wait, nothing more is read. */
export const requestsAtOnceMax = 16;
/** Bytes handed to a stream at once: larger bodies go in such pieces, so that back-pressure is felt between them. */
export const pieceBytesMax = 1024 * KiB;
/** Announcements one peer may send us per minute over all topics. */
export const topicMessagesPerMinuteMax = 6_000;
/** Peers whose rates and scores are remembered. */
export const rememberedPeersMax = 4_096;
