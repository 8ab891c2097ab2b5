/**
 * What a training proof earns: batches × share of the layers × stake multiplier × role × scarcity, in integers, rounded
 * down once at the end. It pays nobody: that is for vesting. Source: docs/proofs.md, Pay.
 */
import type { LedgerView } from './draft.ts';
import { numberKey } from './money.ts';
import type { LedgerPolicy } from './policy.ts';
import type { ProofBody } from './proof.ts';
import type { LedgerConstants } from './rules.ts';
import type { Amount } from './tables.ts';

/** 1,000 NEURO in micro-NEURO: the stake that doubles the argument of the logarithm. */
const stakeUnit: Amount = 1_000_000_000n;
const one = 1n << 64n;
const fractionBits = 32n;

/** ⌊log2(numerator / denominator) · 2^32⌋ for numerator ≥ denominator > 0: bit by bit, by squaring a 64-bit fraction. */
export function log2Fixed(numerator: bigint, denominator: bigint): bigint {
  const ratio = (numerator << 64n) / denominator;
  const whole = BigInt(ratio.toString(2).length - 65);
  let mantissa = ratio >> whole;
  let result = whole << fractionBits;
  for (let bit = fractionBits - 1n; bit >= 0n; bit--) {
    mantissa = (mantissa * mantissa) >> 64n;
    if (mantissa < one << 1n) continue;
    result |= 1n << bit;
    mantissa >>= 1n;
  }
  return result;
}

/** 1 + 0.1 · log2(1 + stake / 1000 NEURO), in millionths, rounded down. */
export function stakeMultiplier(stake: Amount): bigint {
  if (stake <= 0n) return 1_000_000n;
  return 1_000_000n + ((100_000n * log2Fixed(stakeUnit + stake, stakeUnit)) >> fractionBits);
}

/** Thousandths to add for a stage that `replicas` nodes hold, the prover among them. */
export function scarcityBonus(policy: LedgerPolicy, replicas: number): number {
  const { replicasWanted, scarcityBonus: most } = policy;
  if (replicas >= replicasWanted) return 0;
  return Math.floor((most * (replicasWanted - Math.max(1, replicas))) / (replicasWanted - 1));
}

/**
 * Nodes that contributed for a stage to the decided round before this one; as many as are wanted where no such round is
 * known, for what nobody knows earns no bonus.
 */
export function replicasOf(
  view: LedgerView,
  constants: LedgerConstants,
  round: number,
  stage: number,
): number {
  const before = round > 0 ? view.get('round', numberKey(round - 1)) : undefined;
  if (!before) return constants.policy.replicasWanted;
  return before.contributions.filter(([of]) => of === stage).length;
}

export interface RewardInput {
  readonly body: Pick<ProofBody, 'batches' | 'stage' | 'hasEmbedding' | 'hasHead'>;
  readonly stake: Amount;
  readonly replicas: number;
}

/** Micro-NEURO for a plausible training proof. */
export function proofReward({ policy, layers, stageLayers }: LedgerConstants, input: RewardInput): Amount {
  const { body, stake, replicas } = input;
  const role = 1000 + (body.hasEmbedding ? policy.embeddingBonus : 0) + (body.hasHead ? policy.headBonus : 0);
  const numerator =
    BigInt(policy.rewardPerBatch) *
    BigInt(body.batches) *
    BigInt(stageLayers[body.stage] ?? 0) *
    stakeMultiplier(stake) *
    BigInt(role) *
    BigInt(1000 + scarcityBonus(policy, replicas));
  return numerator / (BigInt(layers) * 1_000_000n * 1000n * 1000n);
}
