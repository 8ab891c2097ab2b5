/**
 * The stage replica in this thread: segments, trainer and decoder over one engine. The only place where weights
 * change. It knows nothing of peers, votes or time; calls run one after another.
 */

import type { ModelConfig } from '../model/config.ts';
import { createDecoder, type Decoder } from '../model/generate.ts';
import { initialParameter } from '../model/initialize.ts';
import { samplingRandom } from '../model/sampler.ts';
import { cutStages } from '../model/stage-cut.ts';
import { createPipelineSums, type PipelineLimits } from '../optim/pipeline-sums.ts';
import { createSegments, flatLength, type Segment } from '../optim/segments.ts';
import { createStageTrainer, embeddingScratchBytes, type InnerOptions } from '../optim/stage-trainer.ts';
import { assert, must } from '../std/assert.ts';
import { toHex } from '../std/bytes.ts';
import { sha256Hex } from '../std/hash.ts';
import { inTurn } from '../std/in-turn.ts';
import { merkleLeaf, merkleLevels, proofFromLevels } from '../std/merkle.ts';
import { accept, CodedError, type Outcome, reject } from '../std/outcome.ts';
import type { Engine } from '../tensor/engine.ts';
import { createKernelMemory } from '../tensor/kernels/wasm.ts';
import { closeRound, createAggregationMemory, type OuterSettings } from './close-round.ts';
import { type BlobShape, blobBytes, checkBlob } from './compression/blob.ts';
import { encodeFeedback, takeOut, workToFeedback } from './contribution-work.ts';
import { createDecodeSessions } from './decode-sessions.ts';
import { createRecorder, type RecordingOptions } from './recording.ts';
import { replay } from './replay.ts';
import type { FetchedState, GenerateRequest, Position, RoundRequest, StageReplica } from './replica.ts';
import { checkSnapshot, restoreSegments, snapshotSegments } from './snapshot.ts';
import { flatLeafHashes, leafBytes, leafCount, leafHashes, readLeaf, stateHash, writeLeaf } from './state.ts';

/** Everything but the engine: survives a structured clone, so it can be sent to where the engine is. */
export interface ReplicaSettings {
  readonly config: ModelConfig;
  /** Into how many stages the model is cut, and which one this is, from 0; the whole model by default. */
  readonly stages?: number;
  readonly stageIndex?: number;
  /** The network's seed: initial weights follow from it. */
  readonly seed: Uint8Array;
  /** Names architecture and stage in every state hash, 32 bytes. */
  readonly plan: Uint8Array;
  readonly inner: InnerOptions;
  readonly batch: number;
  readonly sequence: number;
  readonly outer: OuterSettings;
  /** On what is kept of microbatches in flight. */
  readonly pipeline?: PipelineLimits;
  /** Memory for the caches of decode sessions; see `decodeCacheBytesDefault`. */
  readonly decodeCacheBytesMax?: number;
  /** Keeps what an audit of this replica's work needs; without it nothing is recorded. */
  readonly recording?: RecordingOptions;
}

/** Throws CodedError `bad-stages` for a cut that cannot be. */
export async function createLocalReplica(
  options: { engine: Engine } & ReplicaSettings,
): Promise<StageReplica> {
  const { engine, config, seed, plan, outer, stages = 1, stageIndex = 0 } = options;
  const stage = must(cutStages(config, stages)[stageIndex], `stage ${stageIndex} of ${stages}`);
  const segments = createSegments({
    config,
    stage,
    createMemory: createKernelMemory,
    embeddingScratchBytes: embeddingScratchBytes(options.batch, options.sequence, config.width),
  });
  initialize(segments, seed, config);
  const trainer = await createStageTrainer({ ...options, stage, segments });
  const sums = createPipelineSums(trainer, options.pipeline, () => position.step);
  const flat = flatLength(segments);
  const shape: BlobShape = { codec: outer.compression, length: flat };
  const bases: Record<string, Float32Array> = Object.assign(
    {},
    ...segments.map((segment) => segment.baseViews),
  );
  const weights: Record<string, Float32Array> = Object.assign(
    {},
    ...segments.map((segment) => segment.weightViews),
  );
  const inOrder = inTurn();
  const kernels = createAggregationMemory();
  const recorder = options.recording && createRecorder(segments, flat, plan, options.recording);

  let decoder: Decoder | undefined;
  let levels: Uint8Array[][] = [];
  let contributed = false;
  let position: Position = { round: 0, step: 0, optimizerSteps: 0, stateHash: '' };

  /** Stands at the start of a round whose (w_r, v) are in place. */
  const beginRound = (round: number) => {
    // Gradients at other weights, of microbatches whose round is over.
    sums.clear();
    for (const { memory, slabs } of segments) {
      slabs.weights.set(slabs.base);
      // One step that overflowed must not spoil all that this node does from then on.
      for (const name of carriedTensors) {
        if (memory.allFinite(slabs[name])) continue;
        slabs[name].fill(0);
        recorder?.interrupt();
      }
    }
    // Proofs chain from state to state; where nobody can follow, a new chain begins from nothing.
    if (recorder && !recorder.isChained()) {
      for (const { slabs } of segments) for (const name of carriedTensors) slabs[name].fill(0);
      position = { ...position, optimizerSteps: 0 };
    }
    const leaves = leafHashes(segments);
    levels = merkleLevels(leaves);
    contributed = false;
    position = { ...position, round, step: 0, stateHash: toHex(stateHash(plan, round, leaves)) };
    recorder?.begin(round, position.optimizerSteps, position.stateHash, leaves);
    return position;
  };
  beginRound(0);
  const decoding = createDecodeSessions({
    engine,
    engineClass: engine.id,
    config,
    stage,
    bases,
    round: () => position.round,
    ...(options.decodeCacheBytesMax !== undefined && { cacheBytesMax: options.decodeCacheBytesMax }),
  });

  /** The round's work goes over into error feedback: its last state is recorded before. */
  const endWork = () => {
    recorder?.finish(position.step, position.optimizerSteps);
    workToFeedback(segments, outer.compression);
  };

  const countStep = () => {
    position = { ...position, step: position.step + 1, optimizerSteps: position.optimizerSteps + 1 };
    recorder?.afterStep(position.step, position.optimizerSteps);
    // An audit begins at a recorded state: it has no weights of before to make gradients at.
    if (recorder?.isAtBoundary(position.step)) sums.renew();
  };

  const install = ({ round, leaves, stateHash: agreed, counted }: FetchedState): Outcome<Position> => {
    const rightSizes =
      leaves.length === leafCount(flat) && leaves.every((leaf, i) => leaf.length === leafBytes(flat, i));
    if (!rightSizes) return reject('wrong-shape');
    const hashes = leaves.map(merkleLeaf);
    if (toHex(stateHash(plan, round, hashes)) !== agreed) return reject('state-mismatch');
    if (position.step > 0 && !contributed) endWork();
    if (contributed && counted)
      takeOut(segments, outer.compression, encodeFeedback(segments, outer.compression).blob);
    if (contributed && counted === null) for (const { slabs } of segments) slabs.errorFeedback.fill(0);
    decoding.forget();
    for (const [index, leaf] of leaves.entries()) writeLeaf(segments, index, leaf);
    return accept(beginRound(round));
  };

  return {
    info: async () => ({
      engineId: engine.id,
      stage: { ...stage, index: stageIndex, count: stages },
      parameters: segments.reduce((sum, segment) => sum + segment.usedLength, 0),
      flatLength: flat,
      blobBytes: blobBytes(outer.compression, flat),
      stateLeaves: leafCount(flat),
    }),
    position: async () => ({ ...position, contributed }),
    trainStep: (batches, learningRate) =>
      inOrder(async () => {
        assert(!contributed, 'no step after the contribution of a round');
        const result = await trainer.step(batches, learningRate, position.optimizerSteps + 1);
        countStep();
        return result;
      }),
    forward: (call) => inOrder(() => sums.forward(call)),
    backward: (call) => inOrder(() => sums.backward(call)),
    prepareStep: (call) => inOrder(() => sums.prepareStep(call)),
    applyStep: (call) =>
      inOrder(async () => {
        if (contributed) return reject('contributed', 'no step after the contribution of a round');
        const applied = await sums.applyStep({ ...call, step: position.optimizerSteps + 1 });
        if (applied.ok) countStep();
        return applied;
      }),
    discard: (call) => inOrder(() => sums.discard(call)),
    evaluateRows: (entry) => inOrder(() => trainer.forward(entry, 'base')),
    evaluateLoss: (entry, labels) => inOrder(() => trainer.evaluateLoss(entry, labels, 'base')),
    evaluate: (batches, of = 'base') => inOrder(() => trainer.evaluate(batches, of)),
    contribute: () =>
      inOrder(async () => {
        if (!contributed) endWork();
        contributed = true;
        return encodeFeedback(segments, outer.compression);
      }),
    screen: (blob, blobHash, length = flat) =>
      inOrder(async () => {
        if (sha256Hex(blob) !== blobHash) return reject('hash-mismatch');
        return checkBlob(blob, { ...shape, length });
      }),
    closeRound: (request: RoundRequest) =>
      inOrder(async () => {
        if (request.round !== position.round)
          return reject('wrong-round', `${request.round}, now ${position.round}`);
        const unsound = request.contributions.find(({ blob }) => !checkBlob(blob, shape).ok);
        if (unsound) return reject('unsound-blob', unsound.nodeId);
        if (!contributed && position.step > 0) endWork();
        decoding.keepBase();
        const rejected = closeRound({ segments, shape, outer, request, contributed, kernels });
        return accept({ position: beginRound(request.round + 1), rejected });
      }),
    readLeaf: (round, index) =>
      inOrder(async () => {
        if (round !== position.round || index >= leafCount(flat)) return undefined;
        const proof = proofFromLevels(levels, index);
        return { round, bytes: readLeaf(segments, index), proof, root: levels.at(-1)![0]! };
      }),
    install: (state) => inOrder(async () => install(state)),
    snapshot: () => inOrder(async () => snapshotSegments(segments, position, contributed)),
    restore: (snapshot) =>
      inOrder(async () => {
        const checked = checkSnapshot(segments, snapshot);
        if (!checked.ok) return checked;
        const { base, velocity } = snapshot.tensors;
        const leaves = flatLeafHashes(base, velocity);
        if (toHex(stateHash(plan, snapshot.position.round, leaves)) !== snapshot.position.stateHash)
          return reject('snapshot-mismatch', 'its state hash is not that of its tensors');
        sums.clear();
        decoding.forget();
        restoreSegments(segments, snapshot);
        levels = merkleLevels(leaves);
        position = snapshot.position;
        contributed = snapshot.contributed;
        recorder?.interrupt();
        // At a round's start all is known that its record begins with; and what came before has been proved.
        if (position.step === 0 && !contributed)
          recorder?.begin(position.round, position.optimizerSteps, position.stateHash, leaves);
        else recorder?.suspend();
        return accept(position);
      }),
    generate: (request) =>
      inOrder(async () => {
        if (stages > 1) throw new CodedError('not-whole-model', 'this replica holds one stage of several');
        decoder ??= await createDecoder({ engine, config, parameters: (name) => must(bases[name], name) });
        return generateTokens(decoder, request);
      }),
    openSession: (call) => inOrder(() => decoding.openSession(call)),
    decode: (batch) => inOrder(() => decoding.decode(batch)),
    closeSession: (session) => inOrder(() => decoding.closeSession(session)),
    record: (round) => inOrder(async () => recorder?.record(round)),
    evidenceIndex: (hash) => inOrder(async () => recorder?.index(hash)),
    evidenceLeaf: (hash, index) => inOrder(async () => recorder?.leaf(hash, index)),
    replay: (request) =>
      inOrder(async () => {
        if (!recorder) return reject('not-kept', 'this replica records nothing');
        return replay(recorder, segments, trainer, request);
      }),
    breakChain: () => inOrder(async () => recorder?.interrupt()),
    exportWeights: (of = 'base') =>
      inOrder(async () => {
        const views = Object.entries(of === 'base' ? bases : weights);
        return Object.fromEntries(views.map(([name, view]) => [name, view.slice()]));
      }),
    close: () =>
      inOrder(async () => {
        await trainer.close();
        await decoder?.close();
        await decoding.release();
        await engine.close();
      }),
  };
}

/** What goes over from one round into the next beside (w_r, v). */
const carriedTensors = ['firstMoments', 'secondMoments', 'errorFeedback'] as const;

/** w_0 by name from the seed; everything else zero. */
function initialize(segments: readonly Segment[], seed: Uint8Array, config: ModelConfig): void {
  for (const { slabs, parameters, baseViews } of segments) {
    for (const slab of Object.values(slabs)) slab.fill(0);
    for (const { name, shape } of parameters) initialParameter(seed, name, shape, config, baseViews[name]);
  }
}

async function generateTokens(decoder: Decoder, request: GenerateRequest): Promise<number[]> {
  const { prompt, temperature, topK = 0, topP = 1, seed, tokensMax: maxTokens, stop = [] } = request;
  const sampling = { temperature, topK, topP };
  const options = { prompt, sampling, random: samplingRandom(seed), maxTokens, stop };
  const tokens: number[] = [];
  for await (const token of decoder.generate(options)) tokens.push(token);
  return tokens;
}
