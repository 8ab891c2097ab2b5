/**
 * The economy of a network as its founder fixed it in the manifest: all numbers that the ledger's rules read. Amounts
 * are micro-NEURO, shares are thousandths, so that every node computes with integers. It holds no rule itself.
 */
import { z } from 'zod';

const amount = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const count = z.number().int().min(1).max(1_000_000_000);
const permille = z.number().int().min(0).max(1000);
const milliseconds = z.number().int().min(1).max(Number.MAX_SAFE_INTEGER);

export const ledgerPolicySchema = z.strictObject({
  /** Minted for one batch of the manifest's size trained on the whole model, before multipliers. */
  rewardPerBatch: amount.default(10_000),
  embeddingBonus: permille.default(200),
  headBonus: permille.default(300),
  /** Added for a stage that no other node holds; falls linearly to nothing at `replicasWanted`. */
  scarcityBonus: permille.default(500),
  replicasWanted: count.default(3),
  /** For one answered challenge about held weights. */
  uptimeReward: amount.default(100),

  proofsPerHourMax: count.default(120),
  proofAgeMsMax: milliseconds.default(300_000),
  clockSkewMsMax: milliseconds.default(60_000),
  /** A physical bound on any one node. */
  tokensPerSecondMax: count.default(1_000_000),
  /** Inner steps between two committed state hashes. */
  intervalSteps: count.default(5),

  /** Thousandths of proofs audited, by the number of nodes proving: the first row whose `below` exceeds it, or the last. */
  auditRates: z
    .array(z.strictObject({ below: z.number().int().min(1), rate: permille }))
    .min(1)
    .max(16)
    .default([
      { below: 20, rate: 500 },
      { below: 100, rate: 200 },
      { below: 500, rate: 100 },
      { below: Number.MAX_SAFE_INTEGER, rate: 50 },
    ]),
  /** Audits drawn in one block at most: what the auditors can afford. */
  auditsPerBlockMax: z.number().int().min(0).max(256).default(4),
  /** Audits under way at a time at most. */
  auditsOpenMax: z.number().int().min(0).max(4096).default(64),
  /** A stage with fewer contributions than this takes only those whose audit they stood; 0: takes all. */
  auditedCohort: z.number().int().min(0).max(16).default(0),
  auditors: z.number().int().min(1).max(16).default(2),
  auditorsEscalated: z.number().int().min(1).max(64).default(5),
  /** Blocks an auditor has for its commitment, and again for its revelation. */
  auditBlocks: count.default(20),
  /** Block time that either takes at least: whoever fills blocks quickly must not shorten it. */
  auditMsMin: milliseconds.default(60_000),
  /** A reward is paid out after this many ÷ audit rate further proofs. */
  vestingFactor: count.default(5),
  /** An identity's first proofs: all audited, their reward locked as its bond. */
  bondProofs: z.number().int().min(0).max(10_000).default(20),
  /** Of what a slashed node loses, for the reporter; the rest is burned. */
  reporterShare: permille.default(500),
  feePerProof: amount.default(10),
  feePerAudit: amount.default(1_000),
  /** Of what the audited interval earned, for each auditor; at least `feePerAudit`. */
  auditShare: permille.default(1000),

  /** Stake that lets a node vote. */
  memberStakeMin: amount.default(1_000_000_000),
  membersMax: z.number().int().min(1).max(256).default(64),
  /** Decided blocks of one epoch: the member set changes between epochs only. */
  epochBlocks: count.default(100),
  /** Turns that a member may let pass without a block of its own before it is dropped until it registers again; 0: any. */
  silentTurns: z.number().int().min(0).max(1_000_000).default(10),
  /** Of the stake of a member so dropped, burned. */
  silenceFine: permille.default(10),
  unbondingMs: milliseconds.default(7 * 24 * 3_600_000),
  /** S*: bonded stake at which the founders' weight has faded to nothing. */
  founderFadeStake: z.number().int().min(1).max(Number.MAX_SAFE_INTEGER).default(1_000_000_000_000),

  /** For 1,000 positions through the whole model, of prompts and answers alike; 0: serving is free. */
  tokenPrice: amount.default(0),
  /** Positions that a node serves to anybody without being paid, and again each hour. */
  unpaidTokensMax: z.number().int().min(64).max(1_000_000_000).default(4_096),
  /** Of what a consumer pays: to Driver, Workers and Validator; and what is burned before. */
  driverShare: permille.default(150),
  validatorShare: permille.default(150),
  burnShare: permille.default(50),
  /** Longest life of an escrow. */
  escrowMsMax: milliseconds.default(24 * 3_600_000),

  transactionsPerBlockMax: z.number().int().min(1).max(10_000).default(256),
});

export type LedgerPolicy = z.infer<typeof ledgerPolicySchema>;

/** What a founder gets without saying anything. */
export const defaultLedgerPolicy: LedgerPolicy = ledgerPolicySchema.parse({});
