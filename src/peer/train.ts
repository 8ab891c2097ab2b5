/**
 * The training journey of a node that holds the whole model, top to bottom: shard → batch → forward and backward →
 * AdamW, H times → pseudo-gradient → compress → announce → fetch → screen → certify → aggregate → outer step → state
 * hash → held-out loss. Each step is a named function below; what they run on is wired in `peer.ts`.
 */
import type { Position, RoundResult } from '../diloco/replica.ts';
import { type RoundList, shareOf } from '../diloco/round-list.ts';
import type { AgreedState } from '../diloco/statement.ts';
import { heldOutBatches } from '../genesis/sampler.ts';
import { learningRate } from '../optim/schedule.ts';
import { sleep } from '../std/clock.ts';
import { CodedError } from '../std/outcome.ts';
import type { NodeEvent, RejectedContribution } from './events.ts';
import type { Peer } from './peer.ts';

/** What this node did in a round, for its report. */
interface RoundWork {
  readonly round: number;
  readonly losses: readonly number[];
}

/** Trains until the signal aborts or the network has closed `roundsMax` rounds. */
export async function train(peer: Peer, signal: AbortSignal): Promise<void> {
  await joinNetwork(peer, signal);
  await evaluateStart(peer);
  // The first round also bears what it took to join.
  let meter: Meter = { startedMs: peer.options.clock.nowMs(), sent: 0, received: 0 };
  let work: RoundWork = { round: peer.position.round, losses: [] };
  while (!signal.aborted && !isFinished(peer)) {
    const lag = findLag(peer);
    if (lag) {
      await catchUp(peer, lag, signal);
      continue;
    }
    work = await innerLoop(peer, work, signal);
    await contribute(peer, signal);
    const list = await decide(peer, signal);
    const closed = list && (await outerStep(peer, list, signal));
    if (!closed) {
      await recover(peer, signal);
      continue;
    }
    const { rejected } = peer;
    await standAt(peer, closed.position);
    await report(peer, { work, list, closed, rejected, meter });
    meter = startMeter(peer);
  }
}

function isFinished(peer: Peer): boolean {
  return peer.position.round >= (peer.options.roundsMax ?? Number.POSITIVE_INFINITY);
}

const joinAttempts = 20;
const joinWaitMs = 250;

/** Learns from the peers that are there whether the network is ahead of us, before any work is done in vain. */
async function joinNetwork(peer: Peer, signal: AbortSignal): Promise<void> {
  const { clock, transport, network } = peer.options;
  const alone = network.members.every((member) => member.nodeId === transport.self);
  for (let attempt = 0; !alone && attempt < joinAttempts && transport.peers().length === 0; attempt++) {
    await sleep(clock, joinWaitMs, signal);
  }
  await peer.agreement.inquire(signal);
  await peer.agreement.state(peer.position.round, peer.position.stateHash);
}

/** An agreed state that we should stand on and do not: we are behind by more than the round being closed, or differ. */
function findLag(peer: Peer): AgreedState | undefined {
  const newest = peer.agreement.newest();
  if (!newest) return undefined;
  const { round, stateHash } = peer.position;
  if (newest.round > round + 1) return newest;
  if (newest.round === round + 1) return peer.coordinator.isDecided() ? undefined : newest;
  const agreed = peer.agreement.agreed(round);
  return agreed !== undefined && agreed !== stateHash ? { round, stateHash: agreed } : undefined;
}

const catchUpWaitMs = 500;
/** Statements may arrive before the decision they follow from: consensus repeats itself well within this time. */
const decisionWaitMs = 3_000;

/** Stands on the agreed state, fetched from anyone; on failure waits a little, and the caller looks again. */
async function catchUp(peer: Peer, target: AgreedState, signal: AbortSignal): Promise<void> {
  const { round } = peer.position;
  if (target.round === round + 1 && (await isDecidedSoon(peer, signal))) return;
  const installed = await peer.resynchronise(target, signal);
  if (signal.aborted) return;
  if (!installed.ok) {
    emit(peer, { type: 'warning', code: installed.code, detail: `catching up to round ${target.round}` });
    await sleep(peer.options.clock, catchUpWaitMs, signal);
    return peer.agreement.inquire(signal);
  }
  const reason = target.round === round ? 'diverged' : 'behind';
  emit(peer, { type: 'resync', fromRound: round, toRound: target.round, reason });
  await standAt(peer, await peer.options.replica.position());
}

/** A list costs less than a state, and says whether this node's contribution is in it. */
async function isDecidedSoon(peer: Peer, signal: AbortSignal): Promise<boolean> {
  if (peer.coordinator.isDecided()) return false;
  const over = new AbortController();
  const end = () => over.abort();
  const cancel = peer.options.clock.setTimer(decisionWaitMs, end);
  signal.addEventListener('abort', end);
  try {
    return (await peer.coordinator.decision(over.signal)) !== undefined;
  } catch {
    return false;
  } finally {
    cancel();
    signal.removeEventListener('abort', end);
  }
}

/**
 * Steps this node should have made when it contributes. After a crash the list of the round may be decided and name a
 * contribution of which only the blob's hash is left: the same steps are made again, and give the same blob.
 */
function stepsWanted(peer: Peer, made: number): number {
  if (peer.position.contributed) return 0;
  const share = peer.coordinator.ownShare();
  if (share) return share.batches;
  if (peer.coordinator.isDecided()) return 0;
  // At least one step is made, or a network whose nodes all were held up would have nothing to decide.
  return peer.coordinator.isLate() ? Math.max(1, made) : peer.options.network.training.innerSteps;
}

/**
 * shard → batch → forward and backward → AdamW, until H steps are made or the round does not wait any longer. Goes on
 * where the replica stands, also when it comes back to a round after looking for a lag that was none.
 */
async function innerLoop(peer: Peer, before: RoundWork, signal: AbortSignal): Promise<RoundWork> {
  const { network, replica, clock, checkpoints } = peer.options;
  const { innerSteps, batch, sequence } = network.training;
  peer.position = await replica.position();
  const { round } = peer.position;
  const losses = before.round === round ? [...before.losses] : [];
  for (let step = peer.position.step; step < stepsWanted(peer, step) && !signal.aborted; step++) {
    if (findLag(peer)) break;
    const startedMs = clock.nowMs();
    const data = await ifAvailable(peer, () => peer.steps.batch(round, step));
    if (!data) break;
    const rate = learningRate(network.training, round * innerSteps + step);
    const { loss, gradientNorm } = await replica.trainStep([data], rate);
    losses.push(loss);
    const tokens = batch * sequence;
    const tokensPerSecond = (1000 * tokens) / Math.max(1, clock.nowMs() - startedMs);
    emit(peer, {
      type: 'step',
      round,
      step: step + 1,
      innerSteps,
      loss,
      gradientNorm,
      tokens,
      tokensPerSecond,
    });
    await checkpoints?.maybeSnapshot();
  }
  return { round, losses };
}

/** pseudo-gradient → compress → announce; nothing if the round was closed without us or no step was made. */
async function contribute(peer: Peer, signal: AbortSignal): Promise<void> {
  const isOver = peer.coordinator.isDecided() && !peer.coordinator.ownShare();
  if (signal.aborted || isOver || findLag(peer)) return;
  const { step, round } = await peer.options.replica.position();
  if (step === 0) return;
  const { blob, blobHash } = await peer.steps.contribute(round);
  await peer.coordinator.contribute({ blob, blobHash }, step);
  emit(peer, { type: 'contribution', round, batches: step, blobBytes: blob.length, blobHash });
}

/** fetch → screen → certify: waits for the decided list; undefined when the network has gone on without us. */
async function decide(peer: Peer, signal: AbortSignal): Promise<RoundList | undefined> {
  if (signal.aborted) return undefined;
  const left = new AbortController();
  const leave = () => left.abort();
  const unlisten = peer.agreement.onChange(() => {
    if (findLag(peer)) leave();
  });
  signal.addEventListener('abort', leave);
  try {
    if (findLag(peer)) return undefined;
    return await peer.coordinator.decision(left.signal);
  } catch (error) {
    if (left.signal.aborted) return undefined;
    throw error;
  } finally {
    unlisten();
    signal.removeEventListener('abort', leave);
  }
}

/** aggregate → outer step → state hash; undefined when a blob cannot be had or the list is against another base. */
async function outerStep(peer: Peer, list: RoundList, signal: AbortSignal): Promise<RoundResult | undefined> {
  const { replica, key } = peer.options;
  const closing = peer.coordinator.closing(list);
  if (!closing) return undefined;
  const blobs = await peer.coordinator.blobsOf(closing.contributions, signal);
  if (!blobs) return undefined;
  const contributions = closing.contributions.map(({ nodeId, batches }, i) => ({
    nodeId,
    batches,
    blob: blobs[i]!,
  }));
  const closed = await replica.closeRound({ round: list.round, contributions, ownNodeId: key.nodeId });
  if (!closed.ok) {
    emit(peer, {
      type: 'warning',
      code: closed.code,
      detail: `closing round ${list.round}: ${closed.detail}`,
    });
    return undefined;
  }
  return { ...closed.value, rejected: [...closing.rejected, ...closed.value.rejected] };
}

/** The round cannot be closed here: takes the state that others closed it with, once they agree on one. */
async function recover(peer: Peer, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  await peer.agreement.inquire(signal);
  const newest = peer.agreement.newest();
  if (newest && newest.round > peer.position.round) return catchUp(peer, newest, signal);
  if (!findLag(peer)) await sleep(peer.options.clock, catchUpWaitMs, signal);
}

/** state hash: begins the round at this position and tells the others where we stand. */
async function standAt(peer: Peer, position: Position): Promise<void> {
  peer.position = { ...position, contributed: false };
  peer.rejected = [];
  peer.coordinator.begin(position.round, position.stateHash);
  await peer.agreement.state(position.round, position.stateHash);
}

interface Meter {
  readonly startedMs: number;
  readonly sent: number;
  readonly received: number;
}

function startMeter(peer: Peer): Meter {
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
async function report(peer: Peer, made: RoundReport): Promise<void> {
  const { replica, network, transport, clock, sample, checkpoints } = peer.options;
  const { work, list, closed, meter } = made;
  const heldOutLoss = await heldOutLossOf(peer);
  const { bytesSent, bytesReceived } = transport.traffic();
  const left = new Set(closed.rejected.map((one) => one.node));
  const share = shareOf(list, (await replica.info()).stage.index);
  const counted = share.contributions.map((one) => one.nodeId).filter((node) => !left.has(node));
  // Refused at first, say because its blob came late, and counted in the end: only a lie is still worth telling.
  const refused = made.rejected.filter(
    ({ node, code }) => code === 'equivocation' || !counted.includes(node),
  );
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
    tokens: work.losses.length * network.training.batch * network.training.sequence,
    wallMs: clock.nowMs() - meter.startedMs,
  });
  await checkpoints?.maybeSnapshot();
  if (sample)
    emit(peer, { type: 'sample', round: closed.position.round, ...(await sample(replica, list.round)) });
}

/** The held-out loss that training begins with. */
async function evaluateStart(peer: Peer): Promise<void> {
  const loss = await heldOutLossOf(peer);
  if (loss !== null) emit(peer, { type: 'heldOut', round: peer.position.round, loss });
}

/** Held-out loss of w_r; null when this node does not evaluate. */
async function heldOutLossOf(peer: Peer): Promise<number | null> {
  const { dataset, network, replica, heldOutBatches: count } = peer.options;
  if (count === 0) return null;
  const { batch, sequence } = network.training;
  const batches = await ifAvailable(peer, () => heldOutBatches(dataset, { batch, sequence, count }));
  return batches ? replica.evaluate(batches) : null;
}

/** Undefined when no other node gives what must be fetched: this node leaves out its part and follows the network. */
async function ifAvailable<T>(peer: Peer, read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof CodedError) || error.code !== 'dataset-unavailable') throw error;
    emit(peer, { type: 'warning', code: error.code, detail: error.message });
    return undefined;
  }
}

function emit(peer: Peer, event: NodeEvent): void {
  peer.options.events(event);
}
