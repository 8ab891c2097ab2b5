/**
 * The wiring of one node: transport, consensus, rounds, statements, pipeline and resynchronisation around the replica of
 * one stage. It offers the steps that `train.ts` reads top to bottom; it opens no sockets and no files.
 */
import { type DutyOptions, type DutyResult, performDuty } from '../audit/duty.ts';
import type { Checkpoint } from '../consensus/checkpoint.ts';
import type { SignatureScheme } from '../consensus/types.ts';
import { type BlobShelf, createBlobShelf, serveBlobs } from '../diloco/blob-exchange.ts';
import type { StageReplica, Standing } from '../diloco/replica.ts';
import { resynchronise, serveState } from '../diloco/resync.ts';
import { createRoundCoordinator, type RoundCoordinator } from '../diloco/round.ts';
import type { AgreedState } from '../diloco/statement.ts';
import type { Dataset } from '../genesis/dataset.ts';
import { batchOf } from '../genesis/sampler.ts';
import type { KeyPair, VerifyMany } from '../identity/keys.ts';
import { clearanceOf } from '../ledger/clearance.ts';
import type { ProofBody } from '../ledger/proof.ts';
import type { LedgerStore } from '../ledger/store.ts';
import { fraud } from '../ledger/transactions/fraud.ts';
import type { Transport } from '../net/transport.ts';
import type { Batch } from '../optim/stage-trainer.ts';
import { encodeClaim } from '../pipeline/claim.ts';
import { createStageDirectory, type StageDirectory } from '../pipeline/directory.ts';
import type { RowStore } from '../pipeline/row-store.ts';
import { createStageLookup } from '../pipeline/stage-lookup.ts';
import type { StepTaken } from '../pipeline/stage-node.ts';
import { fromHex, toHex } from '../std/bytes.ts';
import type { Clock } from '../std/clock.ts';
import type { HashHex } from '../std/hash.ts';
import { CodedError, type Outcome } from '../std/outcome.ts';
import type { Random } from '../std/random.ts';
import type { Store } from '../std/store.ts';
import { type AgreementTracker, trackAgreement } from './agreement.ts';
import { type Auditor, startAuditing } from './auditing.ts';
import type { CheckpointKeeper } from './checkpoint.ts';
import { createPeerClaims, releaseWork } from './claim-sending.ts';
import type { Claims } from './claims.ts';
import { createDecoding, type Decoding } from './decoding.ts';
import type { EventSink, RejectedContribution } from './events.ts';
import { createLedgerNode, type LedgerNode } from './ledger-node.ts';
import { blockEvent } from './ledger-report.ts';
import type { NetworkManifest } from './network.ts';
import { createPayments, type Payments } from './payments.ts';
import { createPipeline, type Pipeline } from './pipeline.ts';
import { planHash, stageShapes } from './plan.ts';
import { answerChallenges } from './uptime.ts';

/** What a program may put in the place of the honest step: the hostile nodes of the simulation do. */
export interface PeerSteps {
  batch(round: number, step: number, index: number): Promise<Batch>;
  /** The bytes this node contributes, after its inner steps. */
  contribute(round: number): Promise<{ readonly blob: Uint8Array; readonly blobHash: string }>;
  /** What is claimed of a round's work; undefined: nothing. */
  proof(body: ProofBody): Promise<ProofBody | undefined>;
  /** What is said of another's claim. */
  audit(duty: DutyOptions): Promise<DutyResult | undefined>;
}

export interface PeerOptions {
  readonly network: NetworkManifest;
  readonly key: KeyPair;
  readonly dataset: Dataset;
  readonly transport: Transport;
  readonly clock: Clock;
  readonly random: Random;
  readonly store: Store;
  /** Blocks and state of the ledger. */
  readonly ledger: LedgerStore;
  /** Of the ledger, by somebody the user trusts: where a node begins that has not come so far. */
  readonly checkpoint?: Checkpoint;
  readonly replica: StageReplica;
  /** Where a stage of several keeps rows, for audits of its work; without it none of that is recorded. */
  readonly rows?: RowStore;
  readonly events: EventSink;
  readonly checkpoints?: CheckpointKeeper;
  /** Up to this round steps were logged before this start: made again, they must give the same losses. */
  readonly loggedRound?: number;
  /** Does others' training again when the ledger asks for it. */
  readonly auditor?: Auditor;
  /** Held-out batches evaluated after each round; 0: none. */
  readonly heldOutBatches: number;
  /** Writes a short text by w_r after each round, to show what the model says. */
  readonly sample?: (round: number) => Promise<{ prompt: string; text: string }>;
  /** Ends training after this many rounds of the network. */
  readonly roundsMax?: number;
  /** What this node may use, as others are told; 0 where nobody has measured it. */
  readonly memoryBytes?: number;
  readonly steps?: (peer: Peer) => Partial<PeerSteps>;
  /** Of votes; the simulator puts cheaper ones in. */
  readonly signatures?: SignatureScheme;
  /** Verifies the signatures of whole blocks that nobody here has seen anything of. */
  readonly verifyMany?: VerifyMany;
}

export interface Peer {
  readonly options: PeerOptions;
  readonly coordinator: RoundCoordinator;
  readonly ledger: LedgerNode;
  readonly agreement: AgreementTracker;
  readonly shelf: BlobShelf;
  readonly steps: PeerSteps;
  readonly directory: StageDirectory;
  readonly pipeline: Pipeline;
  readonly decoding: Decoding;
  readonly payments: Payments;
  /** Steps taken for other nodes' Drivers since the round began. */
  served: StepTaken[];
  /** The round whose steps were claimed before it was closed; −1: none. */
  claimedFirst: number;
  /** Where the replica stands; kept by the steps of `train.ts`. */
  position: Standing;
  /** Proofs that the ledger has not taken yet. */
  readonly claims: Claims;
  /** Of this round, once it is made. */
  contribution: HashHex | null;
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
    clearance: ({ round, stage, nodeId, blobHash }, contributors) => {
      const one = { round, stage, nodeId, blobHash: fromHex(blobHash), contributors };
      return clearanceOf(ledger.state(), ledger.constants, one);
    },
    isConvicted: (node) => pipeline.isConvicted(node),
    wake: () => ledger.consensus.wake(),
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
  const ledger = await createLedgerNode({
    network,
    key,
    dataset: options.dataset,
    transport,
    clock,
    store,
    ledger: options.ledger,
    rounds: { ...coordinator.application, remind: () => coordinator.remind() },
    isFraud: (node) => pipeline.isConvicted(node),
    heldLeaf: (stateHash, index) => replica.evidenceLeaf(stateHash, index),
    events: options.events,
    ...(options.checkpoint && { checkpoint: options.checkpoint }),
    ...(options.signatures && { signatures: options.signatures }),
    ...(options.verifyMany && { verifyMany: options.verifyMany }),
  });
  const agreement = trackAgreement({ network, stage: info.stage.index, key, transport });
  const stops = [
    serveBlobs(transport, shelf),
    serveState(transport, replica, info.stage.index),
    () => agreement.close(),
    () => coordinator.close(),
  ];
  const honest: PeerSteps = {
    batch: (round, step, index) =>
      batchOf({ dataset: options.dataset, nodeId: key.nodeId, round, step, index, ...network.training }),
    contribute: () => replica.contribute(),
    proof: async (body) => body,
    audit: performDuty,
  };
  const directory = createStageDirectory({
    networkId: network.networkId,
    key,
    transport,
    clock,
    random: options.random,
  });
  const lookup = createStageLookup({
    directory,
    transport,
    clock,
    keyOf: (stage) => toHex(planHash(network, stage)),
  });
  const pipeline = createPipeline({
    network,
    key,
    stage: info.stage.index,
    replica,
    dataset: options.dataset,
    transport,
    clock,
    random: options.random,
    store,
    ...(options.rows && { rows: options.rows }),
    directory,
    candidates: lookup.candidates,
    memoryBytes: options.memoryBytes ?? 0,
    events: options.events,
    batch: (round, step, index) => peer.steps.batch(round, step, index),
    onServed: (step) => noteServed(peer, step),
    onFraud: (claim) => void ledger.send(fraud, { publicKey: claim.publicKey, evidence: encodeClaim(claim) }),
  });
  const payments = await createPayments({ ...options, stage: info.stage.index, ledger });
  const decoding = createDecoding({
    network,
    payments,
    stage: info.stage.index,
    replica,
    transport,
    clock,
    random: options.random,
    directory: lookup,
    queue: pipeline.queue,
    onFailover: ({ stage, from, code, tookMs }) =>
      options.events({ type: 'failover', stage, node: from, code, silentMs: tookMs }),
  });
  const peer: Peer = {
    options,
    coordinator,
    ledger,
    agreement,
    shelf,
    directory,
    pipeline,
    decoding,
    payments,
    steps: honest,
    served: [],
    claimedFirst: -1,
    claims: createPeerClaims({ ...options, ledger }),
    contribution: null,
    position: await replica.position(),
    rejected,
    resynchronise: (target, signal) =>
      resynchronise(replica, {
        transport,
        stage: info.stage.index,
        agreed: target,
        counted: coordinator.isCounted(),
        plan: planHash(network, info.stage.index),
        flatLength: info.flatLength,
        peers: transport.peers(),
        signal,
      }),
    close: async () => {
      for (const stop of stops) stop();
      lookup.close();
      await auditing.close();
      directory.close();
      pipeline.close();
      // Sessions end with the replica: nothing is left to be told to a compute worker that may be gone.
      await Promise.allSettled([decoding.close(), payments.close()]);
      await ledger.close();
    },
  };
  Object.assign(peer, { steps: { ...honest, ...options.steps?.(peer) } });
  const auditing = await startAuditing({
    ...options,
    nodeId: key.nodeId,
    ledger,
    info,
    work: pipeline.work,
    claims: () => peer.claims,
    round: () => peer.position.round,
    audit: (duty) => peer.steps.audit(duty),
  });
  stops.push(
    answerChallenges({
      nodeId: key.nodeId,
      stage: info.stage.index,
      plan: planHash(network, info.stage.index),
      ledger,
      replica,
      events: options.events,
    }),
  );
  ledger.onBlock(() => {
    peer.claims.settle();
    const { claims, position } = peer;
    releaseWork({ claims, ledger, nodeId: key.nodeId, round: position.round, work: pipeline.work });
  });
  ledger.onBlock(({ block }) => {
    for (const { kind, body } of block.transactions) {
      const found = kind === fraud.kind ? fraud.parse(body) : undefined;
      if (found?.ok) pipeline.fraudDecided(found.value.evidence);
    }
  });
  ledger.onBlock((taken) => options.events(blockEvent(ledger, key.nodeId, taken)));
  coordinator.begin(peer.position.round, peer.position.stateHash);
  return peer;
}

/** A step that this stage took for another node's Driver belongs to its round, and is shown like one of its own. */
function noteServed(peer: Peer, step: StepTaken): void {
  const { innerSteps } = peer.options.network.training;
  const { round, loss, gradientNorm, microbatches } = step;
  peer.served.push(step);
  const measured = { loss, gradientNorm, microbatches, tokens: 0, tokensPerSecond: 0 };
  const made = { step: peer.served.length, innerSteps, ...measured };
  peer.options.events({ type: 'step', round, ...made });
}
