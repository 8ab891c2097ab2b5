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
  /** Longest progress frame that a handler may send before its answer; without it there are none. */
  readonly frameBytesMax?: number;
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

/** A leaf of a state that a node committed to in a proof, or the hashes of all its leaves: evidence for an audit. */
export const evidenceProtocol: Protocol = {
  id: '/neuroshard/evidence/1',
  requestBytesMax: 128,
  responseBytesMax: MiB + 64,
  timeoutMs: 60_000,
  // The prover takes its leaves from where it trains, between two steps.
  idleTimeoutMs: 30_000,
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

/** How epochs of consensus ended, one after the other: what proves the newest members to a newcomer. */
export const epochEndsProtocol: Protocol = {
  id: '/neuroshard/epoch-ends/1',
  requestBytesMax: 16,
  responseBytesMax: 4 * MiB,
  timeoutMs: 20_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 120,
};

/** Which chunks make up the ledger's state at the beginning of an epoch. */
export const snapshotInfoProtocol: Protocol = {
  id: '/neuroshard/snapshot-info/1',
  requestBytesMax: 16,
  responseBytesMax: MiB,
  timeoutMs: 20_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 60,
};

/** One of those chunks: 256 KiB and the row that fills it. */
export const snapshotChunkProtocol: Protocol = {
  id: '/neuroshard/snapshot-chunk/1',
  requestBytesMax: 32,
  responseBytesMax: 5 * MiB,
  timeoutMs: 60_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 1_200,
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

/** What a node says of the stage it holds, asked of itself. */
export const stageProtocol: Protocol = {
  id: '/neuroshard/stage/1',
  requestBytesMax: 16,
  responseBytesMax: 256,
  timeoutMs: 5_000,
  idleTimeoutMs: 5_000,
  requestsPerMinuteMax: 60,
};

/** Rows of one microbatch at a stage's boundary and what goes with them: 64 MiB and a header. */
const rowBytesMax = 64 * MiB + 8 * KiB;
const frameBytesMax = 256;

/** Evidence named by its own hash, for an audit of a stage of several: the list of its steps, one of them, or rows. */
export const evidenceBytesProtocol: Protocol = {
  id: '/neuroshard/evidence-bytes/1',
  requestBytesMax: 64,
  responseBytesMax: rowBytesMax,
  timeoutMs: 120_000,
  idleTimeoutMs: 30_000,
  requestsPerMinuteMax: 6_000,
};

/** One microbatch through this stage and all after it, forward and backward. */
export const trainProtocol: Protocol = {
  id: '/neuroshard/train/2',
  requestBytesMax: rowBytesMax,
  responseBytesMax: rowBytesMax,
  timeoutMs: 120_000,
  idleTimeoutMs: 30_000,
  requestsPerMinuteMax: 60_000,
  frameBytesMax,
};

/** The two passes of an optimizer step along a path. */
export const stepProtocol: Protocol = {
  id: '/neuroshard/step/2',
  requestBytesMax: 256 * KiB,
  responseBytesMax: 256 * KiB,
  timeoutMs: 60_000,
  idleTimeoutMs: 30_000,
  requestsPerMinuteMax: 6_000,
  frameBytesMax,
};

/** The loss of one microbatch: forward through this stage and all after it. */
export const evaluateProtocol: Protocol = { ...trainProtocol, id: '/neuroshard/evaluate/1' };

/** The next positions of a sequence through this stage and all after it. */
export const decodeProtocol: Protocol = {
  ...trainProtocol,
  id: '/neuroshard/decode/1',
  timeoutMs: 60_000,
};

/** What a payer owes one who serves it, signed: each replaces the one before. */
export const receiptProtocol: Protocol = {
  id: '/neuroshard/receipt/1',
  requestBytesMax: 256,
  responseBytesMax: 16,
  timeoutMs: 10_000,
  idleTimeoutMs: 10_000,
  requestsPerMinuteMax: 1_200,
};
