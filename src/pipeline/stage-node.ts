/**
 * What one node does with the microbatches and steps of its stage, for itself as the Driver and for callers alike:
 * forward, the next stage, backward; then exactly the committed gradients, and AdamW. It serves nothing.
 */
import type { NodeId } from '../net/transport.ts';
import type { BackwardResult, PipelineStage, StageEntry, SummedMicrobatch } from '../optim/pipeline-stage.ts';
import { gradientScaleOf } from '../optim/stage-trainer.ts';
import { accept, type Outcome, reject } from '../std/outcome.ts';
import type { SealedSums } from './messages.ts';
import type { NextStage, Passage, SealedNorm } from './next-stage.ts';
import { isNormOfDriver, type NormBody, type Seal, type Signing, signNorm } from './seals.ts';
import type { Received, StepRecords } from './step-records.ts';
import type { WeightsGate } from './weights-gate.ts';
import type { WorkQueue } from './work-queue.ts';

export interface StageNode {
  readonly stage: number;
  readonly compute: PipelineStage;
  readonly queue: WorkQueue;
  readonly gate: WeightsGate;
  /** Undefined where the head is. */
  readonly next: NextStage | undefined;
  /** Largest global gradient norm of a step. */
  readonly clip: number;
  /** Of what is said to neighbours; undefined where the model is held whole. */
  readonly signing: Signing | undefined;
  /** Of the steps taken; undefined where nobody is to make them again. */
  readonly records: StepRecords | undefined;
}

/** What one caller sends for one Driver: its gradients are summed apart from those of others. */
export interface Path {
  readonly name: string;
  readonly driver: NodeId;
  readonly round: number;
  readonly step: number;
  readonly passage: Passage | undefined;
  /** Of the microbatches that went through here. */
  readonly losses: Map<number, number>;
  /** What came for them and went back, by index; empty on the first stage. */
  readonly received: Map<number, Received>;
  /** Set by the first pass of the step. */
  prepared: Prepared | undefined;
  /** Its step has been taken. */
  taken: boolean;
}

interface Prepared {
  readonly ids: readonly number[];
  readonly ownNorm: number;
  /** The caller's; null on the first stage. */
  readonly receipt: Seal | null;
  /** The next stage's; null with the head. */
  readonly rest: SealedSums | null;
}

export function openPath(
  node: StageNode,
  place: Pick<Path, 'name' | 'driver' | 'round' | 'step'>,
  before?: Path,
): Path {
  const { driver, round, step } = place;
  const passage = node.next?.open(driver, round, step, before?.passage);
  return {
    ...place,
    passage,
    losses: new Map(),
    received: new Map(),
    prepared: undefined,
    taken: false,
  };
}

export interface Microbatch {
  readonly index: number;
  readonly entry: StageEntry;
  readonly labels: Int32Array;
  /** The Driver's, encoded. */
  readonly claim: Uint8Array;
}

export interface MicrobatchResult {
  readonly loss: number;
  /** dL/dx; null with the embedding. */
  readonly inputGradient: Float32Array | null;
}

/** forward → next stage → backward. What it cannot finish leaves nothing behind in the path's sum. */
export async function runMicrobatch(
  node: StageNode,
  path: Path,
  microbatch: Microbatch,
  signal: AbortSignal,
  moved: () => void = () => {},
): Promise<Outcome<MicrobatchResult>> {
  const name = { path: path.name, id: String(microbatch.index) };
  const leave = await node.gate.enter();
  try {
    const result = await (node.next
      ? throughNext(node, node.next, path, microbatch, signal, moved)
      : atHead(node, name, microbatch, signal));
    if (result.ok && !signal.aborted) {
      path.losses.set(microbatch.index, result.value.loss);
      return result;
    }
    await node.compute.discard({ path: path.name, ids: [name.id] }).catch(() => {});
    return signal.aborted ? reject('aborted') : result;
  } finally {
    leave();
  }
}

async function atHead(
  node: StageNode,
  name: { path: string; id: string },
  { entry, labels }: Microbatch,
  signal: AbortSignal,
): Promise<Outcome<MicrobatchResult>> {
  const done = await queued(
    node,
    'backward',
    () => node.compute.backward({ ...name, entry, target: labels }),
    signal,
  );
  return done.ok ? complete(done.value, done.value.loss) : done;
}

async function throughNext(
  node: StageNode,
  next: NextStage,
  path: Path,
  { index, entry, labels, claim }: Microbatch,
  signal: AbortSignal,
  moved: () => void,
): Promise<Outcome<MicrobatchResult>> {
  const name = { path: path.name, id: String(index) };
  const rows = await queued(node, 'forward', () => node.compute.forward({ ...name, entry }), signal);
  if (!rows.ok) return rows;
  moved();
  const answer = await next.train(path.passage!, { index, claim, labels, rows: rows.value }, signal, moved);
  if (!answer.ok) return answer;
  moved();
  const { gradient, loss } = answer.value;
  const done = await queued(
    node,
    'backward',
    () => node.compute.backward({ ...name, target: gradient }),
    signal,
  );
  return done.ok ? complete(done.value, loss) : done;
}

function complete(result: BackwardResult, loss: number | null): Outcome<MicrobatchResult> {
  return loss === null ? reject('no-loss') : accept({ loss, inputGradient: result.inputGradient });
}

async function queued<T>(
  node: StageNode,
  kind: 'forward' | 'backward',
  task: () => Promise<Outcome<T>>,
  signal: AbortSignal,
): Promise<Outcome<T>> {
  const outcome = await node.queue.run(kind, task, signal);
  return outcome.ok ? outcome.value : outcome;
}

/** First pass of a step: Σg² over exactly these microbatches, by segment, of this stage and those after it. */
export async function prepareStep(
  node: StageNode,
  path: Path,
  { ids, receipt }: Pick<Prepared, 'ids' | 'receipt'>,
  signal: AbortSignal,
): Promise<Outcome<readonly number[]>> {
  const [own, rest] = await Promise.all([
    queued(
      node,
      'backward',
      () => node.compute.prepareStep({ path: path.name, ids: ids.map(String) }),
      signal,
    ),
    node.next ? node.next.prepare(path.passage!, ids, signal) : accept(null),
  ]);
  if (!own.ok) return own;
  if (!rest.ok) return rest;
  path.prepared = { ids, receipt, ownNorm: Math.sqrt(sumOf(own.value)), rest: rest.value };
  return accept([...own.value, ...(rest.value?.sums ?? [])]);
}

export function sumOf(sums: readonly number[]): number {
  return sums.reduce((total, value) => total + value, 0);
}

/** An optimizer step of this stage. */
export interface StepTaken {
  readonly driver: NodeId;
  readonly round: number;
  readonly step: number;
  /** Mean cross-entropy per token over the microbatches that count. */
  readonly loss: number;
  /** Of their mean gradient, all stages together, before clipping. */
  readonly gradientNorm: number;
  readonly microbatches: number;
  /** Why the stages after this one did not take the step, if they did not: it is lost there. */
  readonly lost: string | null;
}

/** No honest norm is smaller than that of one of its parts; rounding aside. */
const normSlack = 1 + 1e-6;

export interface StepToApply {
  readonly norm: number;
  /** The Driver's; null where the model is held whole. */
  readonly seal: Seal | null;
  readonly learningRate: number;
}

/** The norm of a step over all stages, signed by its Driver. */
export function sealNorm(
  { signing }: StageNode,
  { driver, round, step }: Path,
  microbatches: number,
  norm: number,
): Pick<StepToApply, 'norm' | 'seal'> {
  const body = { driver, round, step, microbatches, norm };
  return { norm, seal: signing ? signNorm(signing.networkId, body, signing.key) : null };
}

/**
 * Second pass: AdamW at this stage and, at the same time, at those after it. `norm` is that of the gradient summed over
 * all stages. A Driver can only make the step smaller than the clipped one, never larger. `not-prepared`, `bad-signature`
 * when the norm is not signed by the Driver, `bad-norm`.
 */
export async function applyStep(
  node: StageNode,
  path: Path,
  { norm, seal, learningRate }: StepToApply,
  signal: AbortSignal,
): Promise<Outcome<StepTaken>> {
  const { prepared, driver, round, step } = path;
  if (!prepared) return reject('not-prepared');
  const { ids } = prepared;
  const sealed = checkNorm(node, { driver, round, step, microbatches: ids.length, norm }, seal);
  if (!sealed.ok) return sealed;
  if (norm * normSlack < prepared.ownNorm) return reject('bad-norm');
  path.prepared = undefined;
  const gradientScale = gradientScaleOf(norm, ids.length, node.clip);
  const [own, rest] = await Promise.all([
    node.gate.alone(async () => {
      const applied = await node.compute.applyStep({ path: path.name, learningRate, gradientScale });
      if (applied.ok && sealed.value) record(node, path, { ...prepared, ...sealed.value }, applied.value);
      return applied;
    }),
    node.next && sealed.value ? node.next.apply(path.passage!, sealed.value, signal) : accept(undefined),
  ]);
  if (!own.ok) return own;
  path.taken = true;
  const loss = ids.reduce((sum, id) => sum + (path.losses.get(id) ?? 0), 0) / ids.length;
  const lost = rest.ok ? null : rest.code;
  return accept({
    driver,
    round,
    step,
    loss,
    gradientNorm: norm / ids.length,
    microbatches: ids.length,
    lost,
  });
}

/** Null for a model held whole, where nobody signs anything. */
function checkNorm({ signing }: StageNode, body: NormBody, seal: Seal | null): Outcome<SealedNorm | null> {
  if (!signing) return accept(null);
  if (!seal || !isNormOfDriver(signing.networkId, body, seal)) return reject('bad-signature', 'norm');
  return accept({ norm: body.norm, seal });
}

/** In the replica's own order of steps, since steps are taken one at a time. */
function record(
  { records }: StageNode,
  path: Path,
  { norm, seal, receipt, rest }: Prepared & SealedNorm,
  summed: readonly SummedMicrobatch[],
): void {
  const { driver, round, step, received, passage } = path;
  const sent = passage?.used ?? new Map();
  records?.add({ driver, round, step, norm, normSeal: seal, summed, received, sent, receipt, rest });
}

/** Mean loss of w_r over one batch, through this stage and those after it. */
export async function evaluateStage(
  node: StageNode,
  batch: {
    readonly round: number;
    readonly entry: Int32Array | Float32Array;
    readonly labels: Int32Array;
  },
  signal: AbortSignal,
): Promise<Outcome<number>> {
  const { compute, queue, next } = node;
  if (!next) return queue.run('forward', () => compute.evaluateLoss(batch.entry, batch.labels), signal);
  const rows = await queue.run('forward', () => compute.evaluateRows(batch.entry), signal);
  return rows.ok
    ? next.evaluate({ round: batch.round, labels: batch.labels, rows: rows.value }, signal)
    : rows;
}
