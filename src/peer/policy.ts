/**
 * The defaults of a network: what a founder gets without saying more, by preset and compression. Values are chosen by
 * measurement (docs/log.md) or taken from the papers named beside them.
 */
import { z } from 'zod';
import type { AggregatorName } from '../diloco/aggregation/rules.ts';
import type { CodecName } from '../diloco/compression/codec.ts';
import { driversServedMax } from '../ledger/plausibility.ts';
import { defaultLedgerPolicy, type LedgerPolicy } from '../ledger/policy.ts';
import { proofStatesMax } from '../ledger/proof.ts';

export const compressionNames = ['f32', 'int8', 'int4', 'sparse'] as const satisfies readonly CodecName[];

export const aggregatorNames = [
  'default',
  'mean',
  'trimmed-mean',
  'median',
  'krum',
  'multi-krum',
  'centered-clipping',
  'geometric-median',
] as const satisfies readonly AggregatorName[];

export const activationNames = ['bf16', 'f32', 'int8'] as const;

/** The decided list of a round names contributions of every stage and must fit a block of consensus. */
const stagesMax = 128;

const positive = z.number().positive().finite();
const count = z.number().int().min(1).max(1_000_000_000);

export const trainingSchema = z.strictObject({
  /** H: inner steps of a round. */
  innerSteps: count,
  /** Sequences of a node's batch, and tokens of a sequence. */
  batch: z.number().int().min(1).max(4096),
  sequence: z.number().int().min(1).max(1_048_576),
  peakLearningRate: positive,
  warmupSteps: z.number().int().min(0).max(1_000_000_000),
  totalSteps: count,
  floorRatio: z.number().min(0).max(1),
  beta1: z.number().min(0).lt(1),
  beta2: z.number().min(0).lt(1),
  epsilon: positive,
  weightDecay: z.number().min(0).max(10),
  clip: positive,
  /** Contiguous layer ranges that the model is cut into, at most one for each layer and each member. */
  stages: z.number().int().min(1).max(stagesMax).default(1),
  /** Batches of one inner step of a Driver. */
  microbatches: z.number().int().min(1).max(4096).default(1),
  /** How rows travel between stages; int8 in blocks of 256. */
  activations: z.enum(activationNames).default('bf16'),
});

export const outerSchema = z.strictObject({
  compression: z.enum(compressionNames),
  aggregator: z.enum(aggregatorNames),
  learningRate: positive,
  momentum: z.number().min(0).lt(1),
});

export type TrainingPolicy = z.infer<typeof trainingSchema>;
/** What a founder says of it: fields with a default may be left out. */
export type TrainingDraft = z.input<typeof trainingSchema>;
export type OuterPolicy = z.infer<typeof outerSchema>;

/** Inner steps of a round without `--inner-steps` (DiLoCo's H), and in the demo. */
export const defaultInnerSteps = 500;
export const demoInnerSteps = 20;

/** Rounds shorter than this are a demonstration's: outer momentum has too few of them to gather. */
const shortRound = 100;

/** AdamW as DiLoCo and its successors use it; batch and rate by preset. */
export function defaultTraining(preset: {
  readonly context: number;
  readonly width: number;
}): TrainingPolicy {
  return {
    innerSteps: defaultInnerSteps,
    batch: preset.width >= 512 ? 4 : 8,
    sequence: preset.context,
    peakLearningRate: preset.width <= 128 ? 2e-3 : preset.width <= 256 ? 1e-3 : 6e-4,
    warmupSteps: 50,
    // A hundred rounds of the default length; founders who know better say so.
    totalSteps: 100 * defaultInnerSteps,
    floorRatio: 0.1,
    beta1: 0.9,
    beta2: 0.95,
    epsilon: 1e-8,
    weightDecay: 0.1,
    clip: 1,
    stages: 1,
    microbatches: 1,
    activations: 'bf16',
  };
}

/**
 * What short rounds change, all of it measured (docs/log.md). β1 is 0.8: after an average a node's momentum still points
 * where its own noise had led it, and a shorter memory learns faster. Nodes that average bear 2.25 times the rate of one
 * process, reached more slowly, for averaging takes out the noise of their smaller batches.
 */
export function forRounds(alone: TrainingPolicy, innerSteps: number, averages: boolean): TrainingPolicy {
  if (innerSteps >= shortRound) return { ...alone, innerSteps };
  const { peakLearningRate, warmupSteps } = alone;
  const rate = averages ? { peakLearningRate: 2.25 * peakLearningRate, warmupSteps: 2 * warmupSteps } : {};
  return { ...alone, innerSteps, beta1: 0.8, ...rate };
}

/**
 * DiLoCo (2311.08105): Nesterov 0.7, 0.9. SparseLoCo (2508.15706): error feedback in the place of outer momentum. With
 * short rounds a first step of η·(1 + μ) > 1 overshoots and costs more than it gains (docs/log.md): 0.65, 0.6.
 */
export function defaultOuter(
  compression: CodecName,
  aggregator: AggregatorName,
  innerSteps = defaultInnerSteps,
): OuterPolicy {
  if (compression === 'sparse') return { compression, aggregator, learningRate: 1, momentum: 0 };
  const [learningRate, momentum] = innerSteps < shortRound ? [0.65, 0.6] : [0.7, 0.9];
  return { compression, aggregator, learningRate, momentum };
}

/**
 * Micro-NEURO for 1,000 tokens of prompts and answers: about a third of the reward for training on as many (with the default
 * reward and batches of 2,048 tokens), for a position that is only asked for costs a third of one that is trained on.
 */
export const tokenPriceDefault = 2_000;

/** Steps between two committed state hashes: hashing a state takes as long as a fraction of a step (docs/audit.md). */
const longInterval = 50;
/** Of a stage of several: an auditor fetches the rows of every microbatch between them. */
const stageInterval = 5;

/**
 * The economy of a network with rounds of so many steps. Where a round takes seconds, a node makes more proofs an hour than
 * the 120 of long rounds, and auditors afford few of them: none is certain to be audited, and no bond is built.
 */
export function defaultLedger(innerSteps: number, stages = 1): LedgerPolicy {
  const intervalSteps = intervalFor(innerSteps, stages);
  const common = { ...defaultLedgerPolicy, intervalSteps, tokenPrice: tokenPriceDefault };
  if (innerSteps >= shortRound)
    return { ...common, auditedCohort: auditedCohortDefault, auditMsMin: 180_000 };
  return {
    ...common,
    proofsPerHourMax: 7_200,
    auditsPerBlockMax: 1,
    auditsOpenMax: 2,
    auditBlocks: 60,
    auditMsMin: 60_000,
    bondProofs: 0,
    vestingFactor: 1,
  };
}

/** Two contributions cannot show which of them is wrong; with short rounds audits would take longer than the work. */
const auditedCohortDefault = 3;

/** A proof of the longest round must have room for the hashes. */
function intervalFor(innerSteps: number, stages: number): number {
  if (stages === 1) return innerSteps >= shortRound ? longInterval : innerSteps;
  return Math.max(stageInterval, Math.ceil((driversServedMax * innerSteps) / proofStatesMax));
}
