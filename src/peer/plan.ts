/** The plan: the hash that names architecture and stage, and with the round and the tensors makes a state hash. */

import type { ReExecutorSettings } from '../audit/re-execute.ts';
import type { BlobShape } from '../diloco/compression/blob.ts';
import type { ReplicaSettings } from '../diloco/local-replica.ts';
import { recordingBytesMax } from '../diloco/recording.ts';
import { cutStages } from '../model/stage-cut.ts';
import { stageFlatLength } from '../optim/segments.ts';
import { stageBills } from '../pipeline/memory-bill.ts';
import { assert } from '../std/assert.ts';
import { encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import type { NetworkManifest } from './network.ts';
import { defaultLedger } from './policy.ts';

/** 32 bytes, and others for every stage. `stageIndex` counts from 0. */
export function planHash(
  network: Pick<NetworkManifest, 'networkId' | 'model' | 'training'>,
  stageIndex = 0,
): Uint8Array {
  const stages = cutStages(network.model, network.training.stages);
  const stage = stages[stageIndex];
  assert(stage, `no stage ${stageIndex} among ${stages.length}`);
  const description = encodeCanonical({ model: { ...network.model }, stage: { ...stage } });
  return taggedHash('neuroshard/plan/1', network.networkId, description);
}

/** Of the contributions to each stage. */
export function stageShapes({ model, training, outer }: NetworkManifest): readonly BlobShape[] {
  return cutStages(model, training.stages).map((stage) => {
    return { codec: outer.compression, length: stageFlatLength(model, stage) };
  });
}

/** Drivers that a replica of a later stage serves at once: its own, and a neighbour's that lost its replica. */
const driversServed = 2;

/**
 * Memory that a node of each stage needs, in bytes, copies for audits included; with `stages`, when the model is cut so.
 * `ledger`: that of a network of such rounds unless given. Throws as `cutStages` does.
 */
export function stageBytes(
  { model, training, ledger }: Pick<NetworkManifest, 'model' | 'training'> & Partial<NetworkManifest>,
  stages = training.stages,
): readonly number[] {
  const { batch, sequence, microbatches, innerSteps } = training;
  const paths = stages === 1 ? 1 : driversServed;
  const bills = stageBills(model, stages, { batch, sequence, microbatches: paths * microbatches, paths });
  const { intervalSteps } = ledger ?? defaultLedger(innerSteps, stages);
  const intervals = Math.ceil(innerSteps / intervalSteps);
  return cutStages(model, stages).map(
    (stage, index) => bills[index]! + recordingBytesMax(stageFlatLength(model, stage), intervals),
  );
}

/** What a replica of this stage of the network is made from. */
export function replicaSettings(network: NetworkManifest, stageIndex = 0): ReplicaSettings {
  const { training, outer } = network;
  const { beta1, beta2, epsilon, weightDecay, clip, batch, sequence, stages } = training;
  return {
    config: network.model,
    stages,
    stageIndex,
    seed: network.seed,
    plan: planHash(network, stageIndex),
    inner: { beta1, beta2, epsilon, weightDecay, clip },
    batch,
    sequence,
    outer,
  };
}

/** What the stages of the network are re-executed with, each. */
export function reExecutorSettings(network: NetworkManifest): ReExecutorSettings[] {
  const { stages, activations } = network.training;
  return Array.from({ length: stages }, (_, stage) => ({ ...replicaSettings(network, stage), activations }));
}
