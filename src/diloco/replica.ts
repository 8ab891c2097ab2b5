/**
 * A replica of a stage as the round protocol sees it: something that trains, contributes, screens and aggregates,
 * wherever its weights live (this thread, the compute worker, another process). Every call is asynchronous; calls run
 * one after another, in the order they were made. Everything passed survives a structured clone.
 */
import type { DecodeHost } from '../model/decode-host.ts';
import type { StageSpec } from '../model/parameters.ts';
import type { PipelineStage } from '../optim/pipeline-stage.ts';
import type { Batch, StepResult } from '../optim/stage-trainer.ts';
import type { HashHex } from '../std/hash.ts';
import type { Outcome } from '../std/outcome.ts';
import type { RoundRecord } from './recording.ts';
import type { ReplayRequest } from './replay.ts';

/** Which stage of the cut it holds: stage `index` of `count`, counted from 0. */
export interface StagePlace extends StageSpec {
  readonly index: number;
  readonly count: number;
}

export interface ReplicaInfo {
  readonly engineId: string;
  readonly stage: StagePlace;
  /** Trained parameters. */
  readonly parameters: number;
  /** Length of the flat vector that is compressed and hashed, padding included. */
  readonly flatLength: number;
  /** Exact size of every contribution blob. */
  readonly blobBytes: number;
  readonly stateLeaves: number;
}

export interface Position {
  readonly round: number;
  /** Inner steps made since this round's base. */
  readonly step: number;
  /** AdamW steps since the moments began. */
  readonly optimizerSteps: number;
  readonly stateHash: HashHex;
}

/** Where a replica stands, and whether it has already made its contribution to the round. */
export interface Standing extends Position {
  readonly contributed: boolean;
}

export interface Contribution {
  readonly blob: Uint8Array;
  readonly blobHash: HashHex;
}

/** One entry of the decided list, with its bytes. */
export interface DecidedContribution {
  readonly nodeId: string;
  /** Batches it claims, already capped. */
  readonly batches: number;
  readonly blob: Uint8Array;
}

export interface RoundRequest {
  readonly round: number;
  /** In the decided order. */
  readonly contributions: readonly DecidedContribution[];
  /** Hash of this node's own blob when the list includes it. */
  readonly ownNodeId: string;
}

export interface RoundResult {
  readonly position: Position;
  /** Left out by screening, the same on every honest node. */
  readonly rejected: readonly { readonly node: string; readonly code: string }[];
}

export interface StateLeaf {
  readonly round: number;
  readonly bytes: Uint8Array;
  readonly proof: readonly Uint8Array[];
  readonly root: Uint8Array;
}

/** An agreed state, fetched whole. */
export interface FetchedState {
  readonly round: number;
  readonly stateHash: HashHex;
  readonly leaves: readonly Uint8Array[];
  /**
   * Whether the round that is left was closed with this replica's contribution: its work must not count again. Null where
   * that is not known yet: then it is dropped, for the ledger may say either.
   */
  readonly counted: boolean | null;
}

/** Everything a node must keep to go on after a crash, as flat copies. */
export interface ReplicaSnapshot {
  readonly position: Position;
  /** This node's blob of the current round, when it had already contributed. */
  readonly contributed: boolean;
  /** weights, firstMoments, secondMoments, errorFeedback, base, velocity: f32 of `flatLength` each. */
  readonly tensors: Readonly<Record<SnapshotTensor, Float32Array>>;
}

export const snapshotTensors = [
  'weights',
  'firstMoments',
  'secondMoments',
  'errorFeedback',
  'base',
  'velocity',
] as const;
export type SnapshotTensor = (typeof snapshotTensors)[number];

export interface GenerateRequest {
  readonly prompt: readonly number[];
  readonly tokensMax: number;
  readonly temperature: number;
  readonly topK?: number;
  readonly topP?: number;
  /** Token sequences that end it and are not returned. */
  readonly stop?: readonly (readonly number[])[];
  readonly seed: number;
}

/** `base` is w_r, which the network agrees on; `weights` are the local ones, ahead of it by the steps of this round. */
export type WeightsChoice = 'base' | 'weights';

/**
 * The methods of `PipelineStage` train any stage. `trainStep`, `evaluate` and `generate` are for a replica of the whole
 * model, and throw CodedError `not-whole-model` elsewhere. What microbatches have summed is forgotten when the round
 * changes; after `contribute` microbatches are answered and steps prepared, for the other stages, but none is applied:
 * `contributed`. Decode sessions are pinned to w_r of the round they began in.
 */
export interface StageReplica extends PipelineStage, DecodeHost {
  info(): Promise<ReplicaInfo>;
  position(): Promise<Standing>;
  /** One inner step of the whole model at the rate of the schedule, one batch for each microbatch. */
  trainStep(batches: readonly Batch[], learningRate: number): Promise<StepResult>;
  /** Mean loss of the whole model over the batches: of w_r unless the local weights are asked for. */
  evaluate(batches: readonly Batch[], of?: WeightsChoice): Promise<number>;
  /** compress(w_r − w_local, e): the contribution of this round; the same bytes when asked again. */
  contribute(): Promise<Contribution>;
  /**
   * Whether the bytes are a well-formed contribution with this hash and finite values: to this stage, or to another whose
   * flat vector has `length` elements.
   */
  screen(blob: Uint8Array, blobHash: HashHex, length?: number): Promise<Outcome<void>>;
  /** Aggregates the decided list, takes the outer step, and stands at the start of the next round. */
  closeRound(request: RoundRequest): Promise<Outcome<RoundResult>>;
  /** Undefined when this replica is not in that round (any more). */
  readLeaf(round: number, index: number): Promise<StateLeaf | undefined>;
  /**
   * Replaces (w_r, v) by leaves that were checked against an agreed hash; local work becomes error feedback. Nothing
   * changes unless the hash of all leaves is `stateHash`.
   */
  install(state: FetchedState): Promise<Outcome<Position>>;
  snapshot(): Promise<ReplicaSnapshot>;
  /** `snapshot-mismatch` when it belongs to another model; the replica is unchanged then. */
  restore(snapshot: ReplicaSnapshot): Promise<Outcome<Position>>;
  /** Tokens drawn from w_r after the prompt. */
  generate(request: GenerateRequest): Promise<readonly number[]>;
  /** The states this replica committed to in a round; undefined when it records nothing, or knows the round no more. */
  record(round: number): Promise<RoundRecord | undefined>;
  /** Encoded leaf hashes of a recorded local state, or of the agreed state a recorded round began from. */
  evidenceIndex(stateHash: HashHex): Promise<Uint8Array | undefined>;
  /** A leaf of a recorded local state, or of w_r of an agreed one; undefined when no copy of it is kept. */
  evidenceLeaf(stateHash: HashHex, index: number): Promise<Uint8Array | undefined>;
  /** Makes steps of a recorded round again, and keeps the states of the last interval. `not-kept`, `replay-mismatch`. */
  replay(request: ReplayRequest): Promise<Outcome<void>>;
  /**
   * Ends the chain of recorded states: this round is recorded no further, and the next one begins without moments and
   * error feedback. For a node whose last claim the ledger has not taken: what follows from it can be shown to nobody.
   */
  breakChain(): Promise<void>;
  /** w_r, or the local weights, by Hugging Face name, copied. */
  exportWeights(of?: WeightsChoice): Promise<Readonly<Record<string, Float32Array>>>;
  close(): Promise<void>;
}
