/**
 * Every bound of consensus, in one place: sizes of messages and buffers, and the pace of timers. Knows nothing of
 * what is being ordered; a network may lower or raise the values, but all members should use the same sizes.
 */

export interface ConsensusLimits {
  /** Largest payload of one block, in bytes. */
  readonly payloadBytesMax: number;
  /** Largest message, in bytes: a block with its certificate must fit. Subscribe the topic with this. */
  readonly messageBytesMax: number;
  /** Members a network may name. */
  readonly membersMax: number;
  /** Heights above the current one whose messages are kept; further ones only hint that we are behind. */
  readonly heightsAheadMax: number;
  /** Proposals kept for one height, beside one that a certificate names. Two show an equivocating leader. */
  readonly proposalsPerHeightMax: number;
  /** Heights without a decision after which a replica gives up (days of failed views at the longest timeout). */
  readonly undecidedHeightsMax: number;
  /** Decided blocks kept for members that were away; older ones are pruned, the newest certificate never. */
  readonly decidedBlocksKept: number;
  /** Blocks in one catch-up answer. */
  readonly catchUpBlocksMax: number;
  /** Bytes in one catch-up answer (`decidedSince`). */
  readonly catchUpBytesMax: number;
  /** Heights for which one laggard's message is answered at a time. */
  readonly answerHeightsMax: number;
  /** Pieces of equivocation evidence kept in memory. */
  readonly evidenceMax: number;
  /** Ended epochs whose decided blocks are kept for members that were away. */
  readonly epochsKept: number;
  /** Ended epochs whose last block is kept for newcomers. */
  readonly epochEndsKept: number;
  /** Messages of the next epoch kept until this node gets there; the oldest is dropped first. */
  readonly earlyMessagesMax: number;
}

export const defaultLimits: ConsensusLimits = {
  payloadBytesMax: 128 * 1024,
  messageBytesMax: 192 * 1024,
  membersMax: 256,
  heightsAheadMax: 32,
  proposalsPerHeightMax: 2,
  undecidedHeightsMax: 10_000,
  decidedBlocksKept: 256,
  catchUpBlocksMax: 128,
  catchUpBytesMax: 1024 * 1024,
  answerHeightsMax: 8,
  evidenceMax: 64,
  epochsKept: 2,
  epochEndsKept: 1_024,
  earlyMessagesMax: 128,
};

export interface ConsensusTiming {
  /** Δ of the paper: how long a message is expected to take at most. A view lasts 3Δ. */
  readonly deltaMs: number;
  /** Δ grows by this factor with every height since the last decision, and returns to `deltaMs` after one. */
  readonly deltaGrowth: number;
  /** Where Δ stops growing. */
  readonly deltaMsMax: number;
  /** Retransmission waits deltaMs · retransmitGrowth^k, at most this. */
  readonly retransmitGrowth: number;
  readonly retransmitMsMax: number;
}

export const defaultTiming: ConsensusTiming = {
  deltaMs: 1_000,
  deltaGrowth: 1.5,
  deltaMsMax: 60_000,
  retransmitGrowth: 1.5,
  retransmitMsMax: 30_000,
};
