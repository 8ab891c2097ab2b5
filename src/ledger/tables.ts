/**
 * What the ledger's state holds: rows of a few tables, each under a string key. Rows are plain canonical values, so that
 * a state root, a store and a newcomer's snapshot need to know nothing more about them. No rules here.
 */

/** Integer micro-NEURO, never negative. */
export type Amount = bigint;

/** Under the node's id. */
export interface AccountRow {
  readonly balance: Amount;
  readonly stake: Amount;
  /** Stake that is on its way back: [amount, block time from which it is free], oldest first. */
  readonly unbonding: readonly (readonly [Amount, number])[];
  /** Of the last transaction the owner signed; 0 before the first. */
  readonly nonce: number;
}

/** Under the node's id: who may vote, now or from the next epoch on. */
export interface MemberRow {
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  /** Weight given by the manifest, before it fades; 0 for members by stake alone. */
  readonly founderWeight: number;
  /** The stage that it holds, counted from 0: whose state hashes it states. */
  readonly stage: number;
  /** Wants to vote: false once it left, was convicted of equivocation, or was found silent. */
  readonly registered: boolean;
  /** Equivocated: it never votes again, and is not punished twice. */
  readonly convicted: boolean;
  /** Newest link of its beacon chain: the next preimage hashes to it; null before it committed to one. */
  readonly beacon: Uint8Array | null;
  /** Number of the block in which it committed to the chain; 0 before. */
  readonly beaconAt: number;
  /** Number of its newest block, or of the block before it began to vote. */
  readonly proposedAt: number;
  /** Number of the block that ended the epoch in which it was found silent, until it registers again; else 0. */
  readonly jailedAt: number;
}

/** Under the prover's id. */
export interface ProverRow {
  /** Compressed, 33 bytes. */
  readonly publicKey: Uint8Array;
  /** Training proofs accepted so far. */
  readonly proofs: number;
  /** Of the newest proof; the next one's is larger. */
  readonly nonce: number;
  /** State hash that its newest training proof ended in, and its round and step there. */
  readonly after: Uint8Array | null;
  readonly round: number;
  readonly step: number;
  /** Timestamps of accepted proofs within the last hour, oldest first. */
  readonly recentMs: readonly number[];
  /** Audits of its proofs that have ended well so far. */
  readonly audits: number;
  /** Rewards that are not paid out yet, oldest first: [number of the proof among the prover's, amount, audits by then]. */
  readonly vesting: readonly (readonly [number, Amount, number])[];
  /** Locked rewards of its first proofs. */
  readonly bond: Amount;
  /** Audits of its proofs that have no verdict yet. */
  readonly openDuties: number;
  /** Block whose beacon drew the newest challenge that it answered; 0 before the first. */
  readonly challenged: number;
  /** Blob hash of its newest contribution whose audit it stood; null before the first. */
  readonly cleared: Uint8Array | null;
  /** Challenges that it answered so far. */
  readonly answered: number;
  /** Guilt was found: it earns nothing any more. */
  readonly convicted: boolean;
}

/** Under '<timestamp, zero-padded to 16 digits>/<proof's hash>', kept until age alone would reject the proof. */
export interface SeenProofRow {
  readonly timestampMs: number;
}

/** Under the round's number, zero-padded to 12 digits. */
export interface RoundRow {
  /** SHA-256 of the decided list's canonical bytes. */
  readonly list: Uint8Array;
  /** [stage, node id, base, blob hash, batches], in the list's order. */
  readonly contributions: readonly (readonly [number, string, Uint8Array, Uint8Array, number])[];
  /** State hashes of w_{r+1} that members of a stage's cohort have stated: [stage, node id, hash]. */
  readonly stated: readonly (readonly [number, string, Uint8Array])[];
  /** Hashes that more than half of a stage's weight stated: [stage, hash]; once here, for good. */
  readonly agreed: readonly (readonly [number, Uint8Array])[];
}

/** Under the hash of the proof (`proofHash`), in hex: from the proof until its reward has found its way. */
export interface DutyRow {
  readonly prover: string;
  /** Number of the proof among the prover's, from 1. */
  readonly proof: number;
  /** One of the prover's first proofs, or larger than its bond bears: audited for certain, and locked. */
  readonly first: boolean;
  /** Blob hash of a contribution that waits for this audit to enter its round; null for others. */
  readonly contribution: Uint8Array | null;
  /** Intervals of the proof. */
  readonly intervals: number;
  /** Block number at which the next draw is made: the beacon of a later block decides, so nobody can grind it. */
  readonly drawAt: number;
  /** Which interval is audited; −1 before the draw. */
  readonly interval: number;
  /** Those who were drawn at this tier, and those of earlier tiers who revealed. */
  readonly auditors: readonly string[];
  /** 0: two auditors, 1: five, 2: all members. */
  readonly tier: number;
  /** Last block for commitments; 0 while a draw is awaited. Revelations have as many blocks again. */
  readonly dueAt: number;
  /** Block time until which commitments are taken at least; 0 while a draw is awaited. */
  readonly dueMs: number;
  /** [auditor, H(verdict, recomputed hash, salt)]. */
  readonly commitments: readonly (readonly [string, Uint8Array])[];
  /** [auditor, verdict, recomputed state hash]. */
  readonly reveals: readonly (readonly [string, Verdict, Uint8Array])[];
  /** What the prover gets if the claim stands. */
  readonly reward: Amount;
}

/** `withheld`: the prover did not serve the evidence. */
export type Verdict = 'valid' | 'false' | 'withheld';

/** Under the escrow's id: the body hash of the transaction that opened it. */
export interface EscrowRow {
  readonly payer: string;
  /** Who may claim with the payer's receipts: the gateway, or the node that serves. */
  readonly payee: string;
  readonly amount: Amount;
  /** Already paid out of the amount first escrowed, by receipts. */
  readonly claimed: Amount;
  readonly expiresMs: number;
}

/** Under '<height of the block>/<index>'. */
export interface SlashRow {
  readonly node: string;
  /** Coded, e.g. `false-proof`, `withheld-evidence`, `equivocation`, `driver-fraud`, `false-verdict`, `silence`. */
  readonly reason: string;
  readonly amount: Amount;
  readonly reporter: string | null;
}

/** Under ''. */
export interface ChainRow {
  /** Blocks applied; the first block is number 1. */
  readonly number: number;
  /** Hash of the last block applied; 32 zero bytes before the first. */
  readonly hash: Uint8Array;
  readonly timeMs: number;
  readonly minted: Amount;
  readonly burned: Amount;
  /** Seeds of the last blocks, newest last: a duty drawn at block n uses the seed of block n. */
  readonly seeds: readonly Uint8Array[];
  readonly epoch: number;
  /** Time of the last block of the epoch before. */
  readonly epochStartMs: number;
  /** Who votes in this epoch: [node id, weight], in order. */
  readonly voters: readonly (readonly [string, number])[];
  /** Sum of all stake of registered members. */
  readonly bonded: Amount;
  /** Nodes with a training proof in the epoch before this one. */
  readonly provers: number;
}

export interface Tables {
  readonly account: AccountRow;
  readonly member: MemberRow;
  readonly prover: ProverRow;
  readonly seen: SeenProofRow;
  readonly round: RoundRow;
  readonly duty: DutyRow;
  readonly escrow: EscrowRow;
  readonly slash: SlashRow;
  readonly chain: ChainRow;
}

export type TableName = keyof Tables;

export const tableNames = [
  'account',
  'member',
  'prover',
  'seen',
  'round',
  'duty',
  'escrow',
  'slash',
  'chain',
] as const satisfies readonly TableName[];
