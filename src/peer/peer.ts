/**
 * The wiring of one node that holds the whole model: transport, consensus, rounds, statements and resynchronisation
 * around one replica. It offers the steps that `train.ts` reads top to bottom; it opens no sockets and no files.
 */
import { createConsensusReplica } from '../consensus/replica.ts';
import type { ConsensusReplica, SignatureScheme } from '../consensus/types.ts';
import { type BlobShelf, createBlobShelf, serveBlobs } from '../diloco/blob-exchange.ts';
import type { StageReplica, Standing } from '../diloco/replica.ts';
import { resynchronise, serveState } from '../diloco/resync.ts';
import { createRoundCoordinator, type RoundCoordinator } from '../diloco/round.ts';
import type { AgreedState } from '../diloco/statement.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import type { KeyPair } from '../identity/keys.ts';
import type { Transport } from '../net/transport.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import type { Clock } from '../std/clock.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import type { Store } from '../std/store.ts';
import { type AgreementTracker, trackAgreement } from './agreement.ts';
import { connectChain } from './chain-sync.ts';
import type { CheckpointKeeper } from './checkpoint.ts';
import type { EventSink, RejectedContribution } from './events.ts';
import type { NetworkManifest } from './network.ts';
import { planHash, stageShapes } from './plan.ts';

/** What a program may put in the place of the honest step: the hostile nodes of the simulation do. */
export interface PeerSteps {
  batch(round: number, step: number): Promise<Batch>;
  /** The bytes this node contributes, after its inner steps. */
  contribute(round: number): Promise<{ readonly blob: Uint8Array; readonly blobHash: string }>;
}

export interface PeerOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly store: Store;
  readonly replica: StageReplica;
  readonly events: EventSink;
  readonly checkpoints?: CheckpointKeeper;
  /** Held-out batches evaluated after each round; 0: none. */
  readonly heldOutBatches: number;
  /** Called after each round with the tools to show what the model says; see `train.ts`. */
  readonly sample?: (replica: StageReplica, round: number) => Promise<{ prompt: string; text: string }>;
  /** Ends training after this many rounds of the network. */
  readonly roundsMax?: number;
  readonly steps?: (peer: Peer) => Partial<PeerSteps>;
  /** Of votes; the simulator puts cheaper ones in. */
  readonly signatures?: SignatureScheme;
}

export interface Peer {
  readonly options: PeerOptions;
  readonly coordinator: RoundCoordinator;
  readonly consensus: ConsensusReplica;
  readonly agreement: AgreementTracker;
  readonly shelf: BlobShelf;
  readonly steps: PeerSteps;
  /** Where the replica stands; kept by the steps of `train.ts`. */
  position: Standing;
  /** Contributions refused since the round began. */
  rejected: RejectedContribution[];
  /** Fetches an agreed state from whoever has it and stands on it. */
  resynchronise(target: AgreedState, signal: AbortSignal): Promise<Outcome<AgreedState>>;
  close(): Promise<void>;
}

/** Refusals reported for one round. */
const rejectedMax = 256;

export async function createPeer(options: PeerOptions): Promise<Peer> {
  const { network, key, transport, clock, replica, store } = options;
  const info = await replica.info();
  const shelf = createBlobShelf(store);
  const rejected: RejectedContribution[] = [];

  const coordinator = createRoundCoordinator({
    networkId: network.networkId,
    key,
    stage: info.stage.index,
    shapes: stageShapes(network),
    members: new Map(network.members.map((member) => [member.nodeId, member.stage])),
    agreedBase: (round, stage) => agreement.agreed(round, stage),
    transport,
    clock,
    replica,
    shelf,
    batchesMax: network.training.innerSteps,
    wake: () => consensus.wake(),
    onKeepFailed: (error) => {
      const code = error instanceof CodedError ? error.code : 'blob-not-kept';
      options.events({
        type: 'warning',
        code,
        detail: `own contribution not kept: ${(error as Error).message}`,
      });
    },
    onRejected: (_round, node, code) => {
      const known = peer.rejected.some((one) => one.node === node && one.code === code);
      if (!known && peer.rejected.length < rejectedMax) peer.rejected.push({ node, code });
    },
  });
  const fatal = (error: unknown) =>
    options.events({ type: 'warning', code: 'consensus-failed', detail: String(error) });
  const chain = connectChain({ transport, networkId: network.networkId });
  const consensus = await createConsensusReplica({
    networkId: network.networkId,
    members: network.members,
    key,
    clock,
    store,
    broadcast: chain.broadcast,
    application: {
      ...coordinator.application,
      behind: (height) => chain.catchUp(consensus, height),
      failed: fatal,
      evidence: ({ kind, member }) => {
        const detail = `${kind} by member ${network.members[member]?.nodeId.slice(0, 8)}`;
        options.events({ type: 'warning', code: 'equivocation', detail });
      },
    },
    appliedHeight: 0,
    ...(options.signatures && { signatures: options.signatures }),
  });
  const agreement = trackAgreement({ network, stage: info.stage.index, key, transport });
  const stops = [
    serveBlobs(transport, shelf),
    serveState(transport, replica, info.stage.index),
    chain.serve(consensus),
    () => agreement.close(),
    () => coordinator.close(),
  ];
  const honest: PeerSteps = {
    batch: (round, step) =>
      batchOf({ dataset: options.dataset, nodeId: key.nodeId, round, step, ...network.training }),
    contribute: () => replica.contribute(),
  };
  const peer: Peer = {
    options,
    coordinator,
    consensus,
    agreement,
    shelf,
    steps: honest,
    position: await replica.position(),
    rejected,
    resynchronise: (target, signal) =>
      resynchronise(replica, {
        transport,
        stage: info.stage.index,
        agreed: target,
        counted: coordinator.ownShare() !== undefined,
        plan: planHash(network, info.stage.index),
        flatLength: info.flatLength,
        peers: transport.peers(),
        signal,
      }),
    close: async () => {
      for (const stop of stops) stop();
      await consensus.stop();
    },
  };
  Object.assign(peer, { steps: { ...honest, ...options.steps?.(peer) } });
  coordinator.begin(peer.position.round, peer.position.stateHash);
  return peer;
}
