/** Protocol descriptors: each request protocol's id and bounds. Limits stand here, next to each other. */

export interface Protocol {
  /** `/neuroshard/NAME/VERSION`. */
  readonly id: string;
  readonly requestBytesMax: number;
  readonly responseBytesMax: number;
  /** For the whole exchange. */
  readonly timeoutMs: number;
  /** Longest silence in the middle of a transfer. */
  readonly idleTimeoutMs: number;
  /** Requests one peer may start per minute. */
  readonly requestsPerMinuteMax: number;
}

const KiB = 1024;
const MiB = 1024 * KiB;

/** A chunk of a contribution blob by hash. */
export const blobProtocol: Protocol = {
  id: '/neuroshard/blob/1',
  requestBytesMax: 256,
  responseBytesMax: MiB + 64,
  timeoutMs: 60_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 6_000,
};

/** A chunk of the replica state (w, v) of a round, with its Merkle proof. */
export const stateProtocol: Protocol = {
  id: '/neuroshard/state/1',
  requestBytesMax: 256,
  responseBytesMax: MiB + 8 * KiB,
  timeoutMs: 60_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 6_000,
};

/** Decided blocks with their certificates, for a node that was away. */
export const blocksProtocol: Protocol = {
  id: '/neuroshard/blocks/1',
  requestBytesMax: 256,
  responseBytesMax: 4 * MiB,
  timeoutMs: 20_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 600,
};

/** What round a node is in and the state hash it stands on. */
export const statusProtocol: Protocol = {
  id: '/neuroshard/status/1',
  requestBytesMax: 64,
  responseBytesMax: 64 * KiB,
  timeoutMs: 5_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 600,
};

/** A chunk of a dataset shard with its Merkle proof. */
export const shardProtocol: Protocol = {
  id: '/neuroshard/shard/1',
  requestBytesMax: 256,
  responseBytesMax: 80 * KiB,
  timeoutMs: 20_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 6_000,
};
