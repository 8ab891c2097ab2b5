/** The plan: the hash that names architecture and stage, and with the round and the tensors makes a state hash. */
import type { ReplicaSettings } from '../diloco/local-replica.ts';
import { wholeModel } from '../model/parameters.ts';
import { encodeCanonical } from '../std/codec.ts';
import { taggedHash } from '../std/hash.ts';
import type { NetworkManifest } from './network.ts';

/** 32 bytes. */
export function planHash(network: Pick<NetworkManifest, 'networkId' | 'model'>): Uint8Array {
  const description = encodeCanonical({
    model: { ...network.model },
    stage: { ...wholeModel(network.model) },
  });
  return taggedHash('neuroshard/plan/1', network.networkId, description);
}

/** What a replica of this network is made from. */
export function replicaSettings(network: NetworkManifest): ReplicaSettings {
  const { training, outer } = network;
  const { beta1, beta2, epsilon, weightDecay, clip, batch, sequence } = training;
  return {
    config: network.model,
    seed: network.seed,
    plan: planHash(network),
    inner: { beta1, beta2, epsilon, weightDecay, clip },
    batch,
    sequence,
    outer,
  };
}
