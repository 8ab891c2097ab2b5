/**
 * The network that a seed of the diloco scenario simulates: a signed manifest, a model of a few thousand parameters, a
 * dataset made in memory, and what honest nodes keep where a crash does not reach. Knows no faults.
 */
import type { SignatureScheme } from '../../src/consensus/types.ts';
import type { CodecName } from '../../src/diloco/compression/codec.ts';
import { createLocalReplica } from '../../src/diloco/local-replica.ts';
import type { RecordingOptions } from '../../src/diloco/recording.ts';
import type { StageReplica } from '../../src/diloco/replica.ts';
import { type Dataset, memoryDataset } from '../../src/genesis/dataset.ts';
import { publishManifest } from '../../src/genesis/manifest.ts';
import { bytesOfTokens, packTokens, shardLeaves } from '../../src/genesis/shard.ts';
import type { KeyPair } from '../../src/identity/keys.ts';
import type { ModelConfig } from '../../src/model/config.ts';
import type { Transport } from '../../src/net/transport.ts';
import type { StoredSnapshot } from '../../src/peer/checkpoint.ts';
import type { EventSink } from '../../src/peer/events.ts';
import { createNetworkDocument, type NetworkManifest, requireNetwork } from '../../src/peer/network.ts';
import type { Peer } from '../../src/peer/peer.ts';
import { replicaSettings } from '../../src/peer/plan.ts';
import { defaultOuter } from '../../src/peer/policy.ts';
import { utf8 } from '../../src/std/bytes.ts';
import { sha256 } from '../../src/std/hash.ts';
import { merkleRoot } from '../../src/std/merkle.ts';
import { uniformBelow } from '../../src/std/random.ts';
import { createInterpreter } from '../../src/tensor/interpreter.ts';
import type { NodeEnv } from '../cluster.ts';
import { idealSignatures } from '../ideal-signatures.ts';
import { pick, stream } from '../random.ts';
import type { DilocoChecker } from './checkers.ts';

const oneLayer: ModelConfig = {
  layers: 1,
  width: 16,
  heads: 2,
  kvHeads: 1,
  headWidth: 8,
  ffn: 24,
  vocabulary: 64,
  context: 8,
  ropeTheta: 10_000,
  normEpsilon: 1e-5,
  tiedEmbeddings: false,
};

/** How fast a node computes, and how often it writes a snapshot; null: its disk holds only what protocols store. */
export interface Machine {
  /** Of a backward pass. */
  readonly stepMs: number;
  /** Of a forward pass alone; nothing unless given. */
  readonly forwardMs?: number;
  readonly snapshotMs: number | null;
}

/** What stands between an honest node and its real parts, to see what they do. */
export interface Surveyed {
  readonly replica: StageReplica;
  readonly transport: Transport;
  readonly events: EventSink;
}

export interface DilocoWorld {
  readonly network: NetworkManifest;
  readonly dataset: Dataset;
  /** Of votes. Announcements and statements are signed with secp256k1. */
  readonly signatures: SignatureScheme;
  readonly checker: DilocoChecker;
  readonly machines: readonly Machine[];
  /** The newest snapshot on the disk of each honest node. */
  readonly snapshots: Map<number, StoredSnapshot>;
  /** Honest nodes in their present life. */
  readonly peers: Map<number, Peer>;
  /** Stages train by themselves: the pipeline is not simulated. */
  readonly apart: boolean;
  /** Nodes whose computations do not come to their end, as long as they are in here. */
  readonly hung: Set<number>;
  readonly survey?: (env: NodeEnv, replica: StageReplica) => Surveyed;
  /** Whether honest nodes keep evidence of their steps. */
  readonly records: boolean;
}

const shards = 6;
const shardTokens = 256;

/** Text of a kind: each token is followed by one of two, so that there is something to learn. */
function madeDataset(seed: number): { dataset: Dataset; hash: string } {
  const random = stream(seed, 'text');
  const bytes = Array.from({ length: shards }, () => {
    const tokens: number[] = [uniformBelow(random, oneLayer.vocabulary)];
    while (tokens.length < shardTokens)
      tokens.push((3 * tokens.at(-1)! + 1 + uniformBelow(random, 2)) % oneLayer.vocabulary);
    return bytesOfTokens(packTokens(tokens, 2)).slice();
  });
  const tokenizerJson = utf8('{}');
  const published = publishManifest(
    {
      format: 1,
      name: `text ${seed}`,
      sources: [],
      tokenizerHash: sha256(tokenizerJson),
      vocabularySize: oneLayer.vocabulary,
      tokenBytes: 2,
      shards: bytes.map((shard, index) => ({
        index,
        tokens: shardTokens,
        bytes: shard.length,
        merkleRoot: merkleRoot(shardLeaves(shard)),
      })),
      heldOut: [shards - 1],
    },
    null,
  );
  return { dataset: memoryDataset(published, tokenizerJson, bytes), hash: published.hash };
}

export interface WorldOptions {
  readonly seed: number;
  /** Of all nodes that may ever be there; the first `members` of them vote. */
  readonly keys: readonly KeyPair[];
  readonly members: number;
  /** Stages of the model, a layer each. */
  readonly stages: number;
  readonly compression: CodecName;
  readonly machines: readonly Machine[];
  readonly checker: (network: NetworkManifest) => DilocoChecker;
  /** Through the pipeline, so many microbatches to a step; without it each stage trains by itself. */
  readonly microbatches?: number;
  readonly survey?: (network: NetworkManifest) => NonNullable<DilocoWorld['survey']>;
}

export function createWorld(options: WorldOptions): DilocoWorld {
  const { seed, keys, members, stages, compression, machines, microbatches } = options;
  const { dataset, hash } = madeDataset(seed);
  const document = createNetworkDocument(
    {
      name: `simulated ${seed}`,
      seed: sha256(utf8(`model ${seed}`)),
      model: { ...oneLayer, layers: stages },
      dataset: hash,
      training: {
        innerSteps: pick(stream(seed, 'policy'), [2, 3]),
        batch: 2,
        sequence: 8,
        peakLearningRate: 1e-2,
        warmupSteps: 2,
        totalSteps: 1_000,
        floorRatio: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        epsilon: 1e-8,
        weightDecay: 0.1,
        clip: 1,
        stages,
        ...(microbatches !== undefined && { microbatches }),
      },
      outer: defaultOuter(compression, 'default'),
      members: keys.slice(0, members).map(({ publicKey }) => ({ publicKey, weight: 1 })),
    },
    keys[0]!,
  );
  const network = requireNetwork(document, 'the simulated network');
  return {
    network,
    dataset,
    signatures: idealSignatures(keys),
    checker: options.checker(network),
    machines,
    snapshots: new Map(),
    peers: new Map(),
    apart: stages > 1 && microbatches === undefined,
    hung: new Set(),
    records: stages > 1 && microbatches !== undefined,
    ...(options.survey && { survey: options.survey(network) }),
  };
}

/** The stage of a node: members' by the manifest, and the same rule for others. */
export function stageOf({ network }: Pick<DilocoWorld, 'network'>, index: number): number {
  return network.members[index]?.stage ?? index % network.training.stages;
}

/** A replica at w_0, on the slow and obvious engine: the same bits everywhere. */
export function freshReplica(
  network: NetworkManifest,
  stage: number,
  recording?: RecordingOptions,
): Promise<StageReplica> {
  const settings = { ...replicaSettings(network, stage), ...(recording && { recording }) };
  return createLocalReplica({ engine: createInterpreter(), ...settings });
}
