/** The smallest model that has everything: for tests that need a real replica on the interpreter, in milliseconds. */
import { createLocalReplica, type ReplicaSettings } from '../src/diloco/local-replica.ts';
import type { StageReplica } from '../src/diloco/replica.ts';
import type { ModelConfig } from '../src/model/config.ts';
import type { Batch } from '../src/optim/stage-trainer.ts';
import { seededRandom, uniformBelow } from '../src/std/random.ts';
import { createInterpreter } from '../src/tensor/interpreter.ts';

export const tinyConfig: ModelConfig = {
  layers: 1,
  width: 8,
  heads: 2,
  kvHeads: 1,
  headWidth: 4,
  ffn: 12,
  vocabulary: 16,
  context: 8,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};

export const tinySettings: ReplicaSettings = {
  config: tinyConfig,
  seed: new Uint8Array(32).fill(3),
  plan: new Uint8Array(32).fill(4),
  inner: { beta1: 0.9, beta2: 0.95, epsilon: 1e-8, weightDecay: 0.1, clip: 1 },
  batch: 2,
  sequence: 8,
  outer: { compression: 'int8', aggregator: 'default', learningRate: 0.7, momentum: 0.9 },
};

export function tinyReplica(settings: Partial<ReplicaSettings> = {}): Promise<StageReplica> {
  return createLocalReplica({ engine: createInterpreter(), ...tinySettings, ...settings });
}

/** A batch drawn from (number, node): two rows of eight tokens. */
export function tinyBatch(number: number, node = 0): Batch {
  const random = seededRandom(new Uint8Array(16).map((_, i) => (i < 8 ? number : node + 1)));
  const draw = () => Int32Array.from({ length: 16 }, () => uniformBelow(random, tinyConfig.vocabulary));
  return { tokens: draw(), labels: draw() };
}
