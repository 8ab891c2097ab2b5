/**
 * Which tokens a node trains on: a pure function of the dataset, the node and its position in training, so that
 * anybody can recompute it. It knows nothing of who asks or of what the model does with the tokens.
 */
import { assert, must } from '../std/assert.ts';
import { bytesOf, utf8 } from '../std/bytes.ts';
import { type HashHex, taggedHash } from '../std/hash.ts';
import { CodedError } from '../std/outcome.ts';
import { seededRandom, uniformBelow } from '../std/random.ts';
import type { Dataset } from './dataset.ts';
import { type DatasetManifest, trainingShards } from './manifest.ts';
import type { ShardTokens } from './shard.ts';

/** How much a node trains on in one step; the same for the whole network. */
export interface SamplingPlan {
  /** Sequences in one batch. */
  readonly batch: number;
  /** Tokens in one sequence. */
  readonly sequence: number;
  /** H: inner steps of one round. */
  readonly innerSteps: number;
  /** Batches (microbatches) of one inner step; 1 unless the step accumulates gradients. */
  readonly microbatches?: number;
}

/** Which batch: everything zero-based. */
export interface BatchId {
  readonly nodeId: string;
  readonly round: number;
  /** In [0, innerSteps). */
  readonly step: number;
  /** In [0, microbatches). */
  readonly index?: number;
}

/** Where a batch lies: computable from the manifest alone. */
export interface BatchPlace {
  readonly shard: number;
  /** First token of each sequence within the shard; each sequence reads sequence + 1 tokens from there. */
  readonly offsets: readonly number[];
}

/** Of a held-out batch, whose rows may lie in several shards, `shard` is the first row's. */
export interface Batch extends BatchPlace {
  /** Input ids, row-major [batch, sequence]. */
  readonly tokens: Int32Array;
  /** Next ids, row-major [batch, sequence]: labels[i] follows tokens[i]. */
  readonly labels: Int32Array;
}

export interface BatchRequest extends BatchId, SamplingPlan {
  readonly dataset: Dataset;
}

/**
 * The shard of a node that has finished `k` shards: an index in [0, total) into the training shards.
 * shardFor(node, k) = (H(node) + k) mod total.
 */
export function shardFor(nodeId: string, k: number, total: number): number {
  assert(Number.isSafeInteger(k) && k >= 0 && Number.isSafeInteger(total) && total > 0, 'shardFor: k, total');
  const digest = taggedHash('neuroshard/shard-for', utf8(nodeId));
  const start = new DataView(digest.buffer, digest.byteOffset).getUint32(0, true) % total;
  return (start + (k % total)) % total;
}

interface TrainingSide {
  readonly shards: readonly number[];
  /** Of the smallest training shard. */
  readonly tokensMin: number;
}

/** Once for each manifest: it may list 65,536 shards, and every microbatch of every peer is checked. */
const trainingSides = new WeakMap<DatasetManifest, TrainingSide>();

function trainingSideOf(manifest: DatasetManifest): TrainingSide {
  const known = trainingSides.get(manifest);
  if (known) return known;
  const shards = trainingShards(manifest);
  let tokensMin = Number.POSITIVE_INFINITY;
  for (const shard of shards) tokensMin = Math.min(tokensMin, must(manifest.shards[shard], 'shard').tokens);
  const side = { shards, tokensMin };
  trainingSides.set(manifest, side);
  return side;
}

/**
 * Shards finished before a batch. A shard holds `batchesPerShard` batches of windows that do not overlap, taken from
 * the smallest training shard, so that k follows from (round, step, index) with no history:
 * n = ((round·innerSteps + step)·microbatches + index), k = ⌊n / batchesPerShard⌋.
 * A node that leaves out steps leaves out their windows; its position is still that of the round.
 */
function position(tokensMin: number, id: BatchId, plan: SamplingPlan) {
  const microbatches = plan.microbatches ?? 1;
  const index = id.index ?? 0;
  assert(id.round >= 0 && id.step >= 0 && id.step < plan.innerSteps, 'sampler: round or step');
  assert(index >= 0 && index < microbatches && plan.batch > 0 && plan.sequence > 0, 'sampler: index or plan');
  const windows = Math.floor((tokensMin - 1) / plan.sequence);
  if (windows < 1) throw tooShort(plan.sequence, tokensMin);
  const batchesPerShard = Math.max(1, Math.floor(windows / plan.batch));
  const number = (id.round * plan.innerSteps + id.step) * microbatches + index;
  return { k: Math.floor(number / batchesPerShard), batchInShard: number % batchesPerShard };
}

function tooShort(sequence: number, tokens: number): CodedError {
  return new CodedError(
    'shard-too-short',
    `the dataset has a shard of ${tokens} tokens, too short for sequences of ${sequence}: build it with larger shards`,
  );
}

/**
 * Shard and offsets of a batch. On each visit of a shard the node walks through its windows in an order, and from a
 * phase, drawn from (dataset, node, k); no window comes twice in one visit unless the shard is smaller than a batch.
 */
export function batchPlace(
  manifest: DatasetManifest,
  datasetHash: HashHex,
  id: BatchId,
  plan: SamplingPlan,
): BatchPlace {
  const { shards, tokensMin } = trainingSideOf(manifest);
  const { k, batchInShard } = position(tokensMin, id, plan);
  const shard = must(shards[shardFor(id.nodeId, k, shards.length)], 'training shard');
  const { tokens } = must(manifest.shards[shard], 'shard');
  const seed = taggedHash('neuroshard/sampler/1', utf8(`${datasetHash}/${id.nodeId}/${k}/${plan.sequence}`));
  const random = seededRandom(seed);
  const windows = Math.floor((tokens - 1) / plan.sequence);
  const phase = uniformBelow(random, tokens - windows * plan.sequence);
  const order = shuffled(windows, random);
  const offsets: number[] = [];
  for (let row = 0; row < plan.batch; row++) {
    const window = order[(batchInShard * plan.batch + row) % windows]!;
    offsets.push(phase + window * plan.sequence);
  }
  return { shard, offsets };
}

/** Fisher-Yates over 0 … count − 1. */
function shuffled(count: number, random: ReturnType<typeof seededRandom>): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = uniformBelow(random, i + 1);
    const swapped = order[i]!;
    order[i] = order[j]!;
    order[j] = swapped;
  }
  return order;
}

/** The batch of (node, round, step, index). Rejects only with the dataset's own errors and `shard-too-short`. */
export async function batchOf(request: BatchRequest): Promise<Batch> {
  const { dataset } = request;
  const place = batchPlace(dataset.manifest, dataset.hash, request, request);
  return cutBatch(await dataset.shard(place.shard), place, request.sequence);
}

/** What `nodeIds` train on together in one step, in their order: the batches of the single-process baseline. */
export async function globalBatches(
  request: Omit<BatchRequest, 'nodeId' | 'index'> & { readonly nodeIds: readonly string[] },
): Promise<Batch[]> {
  const { nodeIds, microbatches = 1 } = request;
  const batches: Batch[] = [];
  for (const nodeId of nodeIds) {
    for (let index = 0; index < microbatches; index++) {
      batches.push(await batchOf({ ...request, nodeId, index }));
    }
  }
  return batches;
}

/**
 * `count` batches spread evenly over all held-out shards: the same for everyone, for ever. Windows repeat only where
 * more are asked for than there are.
 */
export async function heldOutBatches(
  dataset: Dataset,
  { batch, sequence, count }: { readonly batch: number; readonly sequence: number; readonly count: number },
): Promise<Batch[]> {
  const windows: { shard: number; offset: number }[] = [];
  for (const shard of dataset.manifest.heldOut) {
    const { tokens } = must(dataset.manifest.shards[shard], 'held-out shard');
    for (let offset = 0; offset + sequence < tokens; offset += sequence) windows.push({ shard, offset });
  }
  if (windows.length === 0)
    throw tooShort(sequence, dataset.manifest.shards[dataset.manifest.heldOut[0]!]!.tokens);
  const batches: Batch[] = [];
  for (let number = 0; number < count; number++) {
    const rows = Array.from({ length: batch }, (_, row) => {
      const position = number * batch + row;
      return windows[Math.floor((position * windows.length) / (count * batch))]!;
    });
    batches.push(await cutRows(dataset, rows, sequence));
  }
  return batches;
}

/** A batch whose rows may lie in several shards; `shard` names the first row's. */
async function cutRows(
  dataset: Dataset,
  rows: readonly { readonly shard: number; readonly offset: number }[],
  sequence: number,
): Promise<Batch> {
  const tokens = new Int32Array(rows.length * sequence);
  const labels = new Int32Array(rows.length * sequence);
  for (const [row, { shard, offset }] of rows.entries()) {
    const source = await dataset.shard(shard);
    tokens.set(source.subarray(offset, offset + sequence), row * sequence);
    labels.set(source.subarray(offset + 1, offset + sequence + 1), row * sequence);
  }
  return { shard: rows[0]!.shard, offsets: rows.map((row) => row.offset), tokens, labels };
}

function cutBatch(source: ShardTokens, { shard, offsets }: BatchPlace, sequence: number): Batch {
  const tokens = new Int32Array(offsets.length * sequence);
  const labels = new Int32Array(offsets.length * sequence);
  for (const [row, offset] of offsets.entries()) {
    assert(offset + sequence < source.length, 'a batch inside its shard');
    tokens.set(source.subarray(offset, offset + sequence), row * sequence);
    labels.set(source.subarray(offset + 1, offset + sequence + 1), row * sequence);
  }
  return { shard, offsets, tokens, labels };
}

/** H(tokens, labels), 32 bytes: what a Driver signs with each microbatch. */
export function batchHash(tokens: Int32Array, labels: Int32Array): Uint8Array {
  return taggedHash(
    'neuroshard/batch/1',
    bytesOf(new Uint32Array([tokens.length])),
    bytesOf(tokens),
    bytesOf(labels),
  );
}
