/**
 * What a node tells of a round it has closed: losses, contributions, traffic, and the held-out loss, which it evaluates
 * through all stages. It changes nothing.
 */
import type { RoundResult } from '../diloco/replica.ts';
import { type RoundList, shareOf } from '../diloco/round-list.ts';
import { heldOutBatches } from '../genesis/sampler.ts';
import { CodedError } from '../std/outcome.ts';
import type { NodeEvent, RejectedContribution } from './events.ts';
import type { Peer } from './peer.ts';

/** What this node did in a round, for its report. */
export interface RoundWork {
  readonly round: number;
  readonly losses: readonly number[];
  /** Begun by this node as their Driver. */
  readonly tokens: number;
}

export interface Meter {
  readonly startedMs: number;
  readonly sent: number;
  readonly received: number;
}

export function startMeter(peer: Peer): Meter {
  const { bytesSent, bytesReceived } = peer.options.transport.traffic();
  return { startedMs: peer.options.clock.nowMs(), sent: bytesSent, received: bytesReceived };
}

interface RoundReport {
  readonly work: RoundWork;
  readonly list: RoundList;
  readonly closed: RoundResult;
  /** Refused before the list was decided. */
  readonly rejected: readonly RejectedContribution[];
  readonly meter: Meter;
}

/** Evaluates w_{r+1} and tells what happened. */
export async function report(peer: Peer, made: RoundReport, signal: AbortSignal): Promise<void> {
  const { replica, transport, clock, sample, checkpoints } = peer.options;
  const { work, list, closed, meter } = made;
  const heldOutLoss = await heldOutLossOf(peer, signal);
  const { bytesSent, bytesReceived } = transport.traffic();
  const left = new Set(closed.rejected.map((one) => one.node));
  const share = shareOf(list, (await replica.info()).stage.index);
  const counted = share.contributions.map((one) => one.nodeId).filter((node) => !left.has(node));
  // Refused at first, say because its blob came late, and listed in the end: only a lie is still worth telling.
  const listed = new Set(list.contributions.map((one) => one.nodeId));
  const refused = made.rejected.filter(({ node, code }) => code === 'equivocation' || !listed.has(node));
  emit(peer, {
    type: 'round',
    round: list.round,
    trainingLoss: work.losses.length > 0 ? work.losses.reduce((a, b) => a + b, 0) / work.losses.length : null,
    heldOutLoss,
    contributions: counted,
    rejected: [...refused, ...closed.rejected.map(({ node, code }) => ({ node, code }))],
    stateHash: closed.position.stateHash,
    bytesSent: bytesSent - meter.sent,
    bytesReceived: bytesReceived - meter.received,
    tokens: work.tokens,
    wallMs: clock.nowMs() - meter.startedMs,
  });
  await checkpoints?.maybeSnapshot();
  // Training does not wait for a text, which other stages may take long to write.
  sample?.(list.round).then(
    (written) => emit(peer, { type: 'sample', round: closed.position.round, ...written }),
    (error) => emit(peer, { type: 'warning', code: 'no-sample', detail: (error as Error).message }),
  );
}

/** The held-out loss that training begins with. */
export async function evaluateStart(peer: Peer, signal: AbortSignal): Promise<void> {
  const loss = await heldOutLossOf(peer, signal);
  if (loss !== null) emit(peer, { type: 'heldOut', round: peer.position.round, loss });
}

/** Other stages may still be closing the round before; a stage that is gone is not waited for longer. */
const evaluateMsMax = 30_000;

/** Held-out loss of w_r; null when this node does not evaluate: the Drivers do. */
async function heldOutLossOf(peer: Peer, signal: AbortSignal): Promise<number | null> {
  const { dataset, network, clock, heldOutBatches: count } = peer.options;
  if (count === 0 || !peer.pipeline.isDriver) return null;
  const { batch, sequence } = network.training;
  const batches = await ifAvailable(peer, () => heldOutBatches(dataset, { batch, sequence, count }));
  if (!batches) return null;
  const over = new AbortController();
  const cancel = clock.setTimer(evaluateMsMax, () => over.abort());
  try {
    const both = AbortSignal.any([signal, over.signal]);
    const loss = await peer.pipeline.evaluate(peer.position.round, batches, both);
    return loss.ok ? loss.value : null;
  } finally {
    cancel();
  }
}

/** Undefined when no other node gives what must be fetched: this node leaves out its part and follows the network. */
export async function ifAvailable<T>(peer: Peer, read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'dataset-unavailable') throw error;
    emit(peer, { type: 'warning', code: error.code, detail: error.message });
    return undefined;
  }
}

export function emit(peer: Peer, event: NodeEvent): void {
  peer.options.events(event);
}
